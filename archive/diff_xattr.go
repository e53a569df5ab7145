// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/sys/userns"
	"github.com/strata-snapshotter/strata/overlayutil"
	"golang.org/x/sys/unix"
)

// diffMarks are overlay's notes about a file.
type diffMarks struct {
	opaque   bool
	whiteout bool // in xattr form, if the file is regular and empty
	metacopy bool // the content is in the layers below
	redirect string
}

// seesMarks makes sure that overlay's marks are visible: the kernel leaves
// trusted attributes out of listings without a word where there is no privilege,
// and a deleted directory would come back.
func seesMarks(ns overlayutil.XattrNamespace) error {
	if ns != overlayutil.Trusted {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return diffError("/proc/self", "read the capabilities of", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_ADMIN) == 0 || userns.RunningInUserNS() {
		return fmt.Errorf("trusted attributes can't be read without CAP_SYS_ADMIN: %w", ErrUnsure)
	}
	return nil
}

// load opens the file and reads its attributes: marks, and those that the layer
// gets.
func (d *differ) load(e *diffEntry) error {
	if err := e.open(); err != nil {
		return err
	}
	names, err := d.listXattrs(e)
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
		if name == "" {
			continue
		}
		if err := d.loadXattr(e, name); err != nil {
			return err
		}
	}
	d.finishOverride(e)
	return nil
}

func (d *differ) loadXattr(e *diffEntry, name string) error {
	if done, err := d.loadOverride(e, name); done || err != nil {
		return err
	}
	mark, isMark := strings.CutPrefix(name, string(d.ns))
	keep := !isMark && d.keepXattr(name)
	if !isMark && !keep {
		return nil
	}
	value, found, err := d.xattr(e, name)
	if err != nil || !found {
		return err
	}
	if isMark {
		return e.mark(mark, value)
	}
	e.keep(name, value)
	return nil
}

// keep puts an attribute into the layer.
func (e *diffEntry) keep(name, value string) {
	if e.xattrs == nil {
		e.xattrs = map[string]string{}
	}
	e.xattrs[name] = value
}

// mark reads one of overlay's marks (fs/overlayfs/overlayfs.h). One that a kernel
// will have in the future may change what the entry means.
func (e *diffEntry) mark(name, value string) error {
	switch {
	case name == "opaque" && value == "y":
		e.marks.opaque = true
	case name == "opaque" && value == "x": // the whiteouts in it tell for themselves
	case name == "whiteout":
		e.marks.whiteout = true
	case name == "metacopy":
		e.marks.metacopy = true
	case name == "redirect" && value != "":
		e.marks.redirect = value
	case name == "origin", name == "impure", name == "uuid":
	case name == "nlink":
		// With index=on the names of a hard link stay together when one of them is
		// written to, and those not touched are not in the upper directory.
		return unsure(e.path, "is a hard link to a file that the layers below have under other names too")
	case strings.HasPrefix(name, "overlay."): // escaped: of an overlay inside the container
	default:
		return unsure(e.path, "has the mark %q = %q that is not known", name, value)
	}
	return nil
}

// keepXattr tells whether the layer gets an attribute. Labels and signatures
// (security.selinux, security.ima) are those of this host; containerd leaves them
// out, too.
func (d *differ) keepXattr(name string) bool {
	switch {
	case name == "security.capability", name == "system.posix_acl_access", name == "system.posix_acl_default":
		return true
	case !strings.HasPrefix(name, "user."):
		return false
	case strings.ContainsRune(name, '='):
		d.warn(name, "a tar can't carry it")
		return false
	case overlayutil.User.IsOverlayXattr(name):
		d.warn(name, "an overlay would take it for its own")
		return false
	}
	return true
}

func (d *differ) warn(name, why string) {
	if d.opts.Warn == nil || d.warned[name] {
		return
	}
	d.warned[name] = true
	d.opts.Warn(fmt.Sprintf("attribute %q is left out of the layer: %s", name, why))
}

func (d *differ) listXattrs(e *diffEntry) (string, error) {
	names, err := d.growing(func(buf []byte) (int, error) {
		if e.opened {
			return unix.Flistxattr(e.fd, buf)
		}
		return unix.Listxattr(e.procPath(), buf)
	})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return "", nil
	}
	if err != nil {
		return "", diffError(e.path, "list the attributes of", err)
	}
	return names, nil
}

func (d *differ) xattr(e *diffEntry, name string) (value string, found bool, err error) {
	value, err = d.growing(func(buf []byte) (int, error) {
		if e.opened {
			return unix.Fgetxattr(e.fd, name, buf)
		}
		return unix.Getxattr(e.procPath(), name, buf)
	})
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return "", false, nil
	}
	if err != nil {
		return "", false, diffError(e.path, "read the attribute "+name+" of", err)
	}
	return value, true, nil
}

// growing calls read with larger buffers until one is large enough. The kernel
// has no attribute, and no list of names, over 64 KiB.
func (d *differ) growing(read func([]byte) (int, error)) (string, error) {
	for {
		n, err := read(d.buf)
		if errors.Is(err, unix.ERANGE) && len(d.buf) <= 64<<10 {
			d.buf = make([]byte, 8*len(d.buf))
			continue
		}
		if err != nil || n == 0 {
			return "", err
		}
		return string(d.buf[:n]), nil
	}
}
