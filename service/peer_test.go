// SPDX-License-Identifier: Apache-2.0

package service

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"

	"github.com/strata-snapshotter/strata/config"
	"github.com/strata-snapshotter/strata/internal/testutil"
)

// manyGroups is more supplementary groups than the first buffer of
// peerGroups holds, the wanted one last.
func manyGroups(last uint32) []uint32 {
	groups := make([]uint32, 0, 201)
	for i := range uint32(200) {
		groups = append(groups, 60000+i)
	}
	return append(groups, last)
}

func TestPeers(t *testing.T) {
	cfg := start(t, func(c *config.Config) { c.Group = strconv.Itoa(testGroup) })
	// Wide open by hand: now only the credentials keep anybody out.
	must(t, os.Chmod(filepath.Dir(cfg.Address), 0o755))
	must(t, os.Chmod(cfg.Address, 0o666))
	for name, test := range map[string]struct {
		who  syscall.Credential
		want string
	}{
		"root":                    {syscall.Credential{}, "OK"},
		"root in another group":   {syscall.Credential{Gid: strangerID}, "OK"},
		"stranger":                {syscall.Credential{Uid: strangerID, Gid: strangerID}, "Unavailable"},
		"stranger in group root":  {syscall.Credential{Uid: strangerID, Gid: 0}, "Unavailable"},
		"primary group":           {syscall.Credential{Uid: strangerID, Gid: testGroup}, "OK"},
		"supplementary group":     {syscall.Credential{Uid: strangerID, Gid: strangerID, Groups: []uint32{testGroup}}, "OK"},
		"last of many groups":     {syscall.Credential{Uid: strangerID, Gid: strangerID, Groups: manyGroups(testGroup)}, "OK"},
		"other groups":            {syscall.Credential{Uid: strangerID, Gid: strangerID, Groups: []uint32{1, testGroup + 1}}, "Unavailable"},
		"many groups but not one": {syscall.Credential{Uid: strangerID, Gid: strangerID, Groups: manyGroups(1)}, "Unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := runChild(t, "health "+cfg.Address, &test.who); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// TestGroupModeIsEnough: nothing is changed by hand, directory and socket let
// the group in and nobody else.
func TestGroupModeIsEnough(t *testing.T) {
	cfg := start(t, func(c *config.Config) { c.Group = strconv.Itoa(testGroup) })
	member := syscall.Credential{Uid: strangerID, Gid: strangerID, Groups: []uint32{testGroup}}
	if got := runChild(t, "health "+cfg.Address, &member); got != "OK" {
		t.Errorf("a member of the group gets %s", got)
	}
	stranger := syscall.Credential{Uid: strangerID, Gid: strangerID}
	if got := runChild(t, "health "+cfg.Address, &stranger); got != "Unavailable" {
		t.Errorf("a stranger gets %s", got)
	}
}

func TestWithoutGroupMembersOfGroupZeroAreRefused(t *testing.T) {
	cfg := start(t, func(*config.Config) {})
	must(t, os.Chmod(filepath.Dir(cfg.Address), 0o755))
	must(t, os.Chmod(cfg.Address, 0o666))
	who := syscall.Credential{Uid: strangerID, Gid: 0, Groups: []uint32{0}}
	if got := runChild(t, "health "+cfg.Address, &who); got != "Unavailable" {
		t.Errorf("got %s", got)
	}
}

func TestRefusalIsLogged(t *testing.T) {
	testutil.RequireRoot(t)
	var buf lockedBuffer
	logger := logrus.New()
	logger.Out = &buf
	l, err := listen(log.WithLogger(t.Context(), logrus.NewEntry(logger)), filepath.Join(publicDir(t), "s.sock"), "")
	must(t, err)
	must(t, os.Chmod(l.address, 0o666))
	done := make(chan error)
	go func() { _, err := l.Accept(); done <- err }()
	who := syscall.Credential{Uid: strangerID, Gid: strangerID}
	if got := runChild(t, "health "+l.address, &who); got != "Unavailable" {
		t.Errorf("got %s", got)
	}
	must(t, l.Close())
	if err := <-done; err == nil {
		t.Error("Accept gave out a refused connection")
	}
	must(t, l.release())
	for _, want := range []string{"level=warning", "connection refused", fmt.Sprintf("uid=%d", strangerID), fmt.Sprintf("gid=%d", strangerID), "pid="} {
		if !strings.Contains(buf.String(), want) {
			t.Errorf("%q is not in the log: %s", want, buf.String())
		}
	}
}

// lockedBuffer is a log's destination that can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
