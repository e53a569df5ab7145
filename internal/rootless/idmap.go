// SPDX-License-Identifier: Apache-2.0

package rootless

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// kind is one of the two sorts of ids that a namespace has a map of.
type kind struct {
	file    string // of the administrator, subuid(5)
	program string // that may write a map with these ids, newuidmap(1)
	mapFile string // of the namespace, in /proc/PID
}

var (
	userIDs  = kind{file: "/etc/subuid", program: "newuidmap", mapFile: "uid_map"}
	groupIDs = kind{file: "/etc/subgid", program: "newgidmap", mapFile: "gid_map"}
)

// mapIDs gives the namespace of the process its ids. Where subordinate ids can't be
// had, the user's own is mapped alone, and problem says why, and what to do.
func mapIDs(pid int) (problem string, err error) {
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	names := namesOf(uid)
	uidProblem := userIDs.writeAll(pid, uid, names)
	gidProblem := groupIDs.writeAll(pid, gid, names)
	var errs []error
	if uidProblem != nil {
		errs = append(errs, userIDs.writeOwn(pid, uid))
	}
	if gidProblem != nil {
		// Who maps groups without privilege has to give up setgroups(2) first.
		errs = append(errs, write(pid, "setgroups", "deny"), groupIDs.writeOwn(pid, gid))
	}
	if err := errors.Join(errs...); err != nil {
		return "", refusedMaps(errors.Join(err, uidProblem, gidProblem))
	}
	if err := errors.Join(uidProblem, gidProblem); err != nil {
		return singleID(uid, names[0], uidProblem, gidProblem), nil
	}
	return "", nil
}

// namesOf are the names that /etc/subuid may have a user by, the login name first.
func namesOf(uid uint32) []string {
	id := strconv.FormatUint(uint64(uid), 10)
	if account, err := user.LookupId(id); err == nil && account.Username != "" {
		return []string{account.Username, id}
	}
	return []string{id}
}

// writeAll has the privileged program write a map with all of the user's subordinate
// ids. The error is why that is not possible.
func (k kind) writeAll(pid int, own uint32, names []string) error {
	ranges, err := readMap(k.file, own, names)
	if err != nil {
		return err
	}
	program, err := exec.LookPath(k.program)
	if err != nil {
		return fmt.Errorf("the program %s is not installed: %w", k.program, errdefs.ErrNotFound)
	}
	args := []string{strconv.Itoa(pid)}
	for _, r := range ranges {
		for _, n := range []uint32{r.Inside, r.Outside, r.Count} {
			args = append(args, strconv.FormatUint(uint64(n), 10))
		}
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", k.program, err, bytes.TrimSpace(out))
	}
	return nil
}

// writeOwn maps one id, which everybody may do for themselves (user_namespaces(7)).
func (k kind) writeOwn(pid int, own uint32) error {
	return write(pid, k.mapFile, fmt.Sprintf("0 %d 1\n", own))
}

func write(pid int, file, text string) error {
	path := filepath.Join("/proc", strconv.Itoa(pid), file)
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		return fmt.Errorf("map ids: %w", err)
	}
	return nil
}

// singleID says in one line what is missing, and what to do about it.
func singleID(uid uint32, name string, problems ...error) string {
	reasons := strings.ReplaceAll(errors.Join(problems...).Error(), "\n", "; ")
	return fmt.Sprintf("only your own id %d is mapped in the user namespace (%s): "+
		"install the package uidmap (shadow-utils), and have the administrator add a line for you to /etc/subuid and one to /etc/subgid: "+
		"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s, with a range that nobody else has", uid, reasons, name)
}

// refusedMaps is the error where not even the own id can be mapped.
func refusedMaps(err error) error {
	advice := "run as root"
	if errors.Is(err, unix.EPERM) && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		advice = "AppArmor restricts user namespaces: as root, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give the program a profile with \"userns,\""
	}
	return fmt.Errorf("give the user namespace its ids: %w: %s: %w", err, advice, errdefs.ErrFailedPrecondition)
}

// sysctl is the value of a setting in /proc/sys, empty if this kernel does not have it.
func sysctl(name string) string {
	data, err := os.ReadFile(filepath.Join("/proc/sys", name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
