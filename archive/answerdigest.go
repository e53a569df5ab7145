// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// answerFormat begins what is hashed: a digest of another form never equals one of this.
const answerFormat = "strata answer 1\n"

// digest describes the patch as it lies on the disk, and not as it was meant to become:
// what the file system made of it is what a chain would see. It has to be a cryptographic
// one, since attributes of directories are an image's to choose.
func (q *asking) digest() (digest.Digest, error) {
	digester := digest.SHA256.Digester()
	h := answerHash{Hash: digester.Hash()}
	h.bytes([]byte(answerFormat))
	// The root comes first, which shows through like any other directory, but for its time:
	// that is of when the patch was made.
	paths := append([]string{""}, slices.Sorted(maps.Keys(q.made))...)
	for _, path := range paths {
		if err := h.directory(int(q.Patch.Fd()), path); err != nil {
			return "", fmt.Errorf("patch directory %s: %w", quote(path), err)
		}
	}
	return digester.Digest(), nil
}

// answerHash is fed with values that can be told apart: each has its length before it,
// or is of a fixed one.
type answerHash struct{ hash.Hash }

func (h answerHash) number(n uint64) {
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, n)) // never fails, see hash.Hash
}

func (h answerHash) bytes(b []byte) {
	h.number(uint64(len(b)))
	_, _ = h.Write(b)
}

// ofTheHost says whether an attribute is set by the kernel as the host's policy says, on
// every directory that is made, and never copied from another. That of EVM is another one
// for every inode.
func ofTheHost(name string) bool {
	return strings.HasPrefix(name, "security.selinux") || name == "security.evm"
}

func (h answerHash) directory(patch int, path string) (err error) {
	fd, err := openBeneath(patch, "./"+path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if path == "" {
		st.Mtim = unix.Timespec{}
	}
	h.bytes([]byte(path))
	for _, n := range []uint64{uint64(st.Mode), uint64(st.Uid), uint64(st.Gid), uint64(st.Mtim.Sec), uint64(st.Mtim.Nsec)} {
		h.number(n)
	}
	return h.xattrs(fd)
}

// xattrs covers overlay's marks, too.
func (h answerHash) xattrs(fd int) error {
	names, err := listXattrs(fd)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, ofTheHost)
	slices.Sort(names)
	h.number(uint64(len(names)))
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	for _, name := range names {
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			return fmt.Errorf("read attribute %s: %w", quote(name), err)
		}
		h.bytes([]byte(name))
		h.bytes(value[:n])
	}
	return nil
}
