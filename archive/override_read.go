// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// override is what an attribute says of a file.
type override struct {
	uid, gid     uint32
	mode         uint32 // permission bits, setuid, setgid and sticky
	typ          byte   // 0: the file is what it is
	major, minor uint32
}

// maxOverride is longer than any value can be.
const maxOverride = 128

// parseOverride reads "UID:GID:MODE[:TYPE]". Some programs write file type bits into
// the mode, which say nothing that the file or TYPE does not. What nobody writes is
// ErrInvalidArgument: it would be shown as something else by every reader.
func parseOverride(value string) (o override, err error) {
	parts := strings.SplitN(value, ":", 4)
	if len(parts) < 3 {
		return o, malformed(value)
	}
	uid, uidErr := strconv.ParseUint(parts[0], 10, 32)
	gid, gidErr := strconv.ParseUint(parts[1], 10, 32)
	mode, modeErr := strconv.ParseUint(parts[2], 8, 32)
	if errors.Join(uidErr, gidErr, modeErr) != nil || mode > 0o177777 {
		return o, malformed(value)
	}
	o.uid, o.gid, o.mode = uint32(uid), uint32(gid), uint32(mode)&0o7777
	if len(parts) < 4 {
		return o, nil
	}
	if err := o.parseType(parts[3]); err != nil {
		return o, malformed(value)
	}
	return o, nil
}

func malformed(value string) error {
	return fmt.Errorf("%q is no UID:GID:MODE:TYPE: %w", value, errdefs.ErrInvalidArgument)
}

var errType = errors.New("not a type")

func (o *override) parseType(text string) error {
	kind, numbers, device := strings.Cut(text, "-")
	switch kind {
	case "file", "dir", "symlink", "socket":
		// The file itself shows which of them it is.
	case "pipe":
		o.typ = typeFifo
	case "block":
		o.typ = typeBlock
	case "char":
		o.typ = typeChar
	default:
		return errType
	}
	if device != o.isDevice() {
		return errType
	}
	if !device {
		return nil
	}
	first, second, _ := strings.Cut(numbers, "-")
	major, err := strconv.ParseUint(first, 10, 32)
	minor, minorErr := strconv.ParseUint(second, 10, 32)
	if err != nil || minorErr != nil || (o.typ == typeChar && major == 0 && minor == 0) {
		return errType // the last would be a whiteout
	}
	o.major, o.minor = uint32(major), uint32(minor)
	return nil
}

func (o *override) isDevice() bool { return o.typ == typeBlock || o.typ == typeChar }

// apply makes st say what the attribute does.
func (o *override) apply(st *unix.Stat_t) {
	st.Uid, st.Gid = o.uid, o.gid
	st.Mode = st.Mode&unix.S_IFMT | o.mode
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	switch o.typ {
	case typeFifo:
		st.Mode = unix.S_IFIFO | o.mode
	case typeBlock:
		st.Mode = unix.S_IFBLK | o.mode
	case typeChar:
		st.Mode = unix.S_IFCHR | o.mode
	default:
		return
	}
	st.Rdev = unix.Mkdev(o.major, o.minor)
}

// readOverride reads the attribute of an open file; nil: it has none.
func readOverride(fd int) (*override, error) {
	value := make([]byte, maxOverride)
	n, err := unix.Fgetxattr(fd, overrideStat, value)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil, nil
	case errors.Is(err, unix.ERANGE):
		return nil, malformed("(over 128 bytes)")
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", overrideStat, err)
	}
	o, err := parseOverride(string(value[:n]))
	return &o, err
}
