// SPDX-License-Identifier: Apache-2.0

package overlayutil

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// Answer is what a probe found out.
type Answer int

// The answers. Unknown means that something unrelated went wrong (a full disk,
// no memory): it is no reason to refuse anything.
const (
	Unknown Answer = iota
	No
	Yes
)

// String returns "unknown", "no" or "yes".
func (a Answer) String() string {
	switch a {
	case No:
		return "no"
	case Yes:
		return "yes"
	}
	return "unknown"
}

// Finding is a probe's answer. Reason says why it is not Yes.
type Finding struct {
	Answer Answer
	Reason error
}

// ProbePrefix begins the name of the directory in which a probe works, below the
// probed one. It is removed at the end; one that is left is from a process that
// was killed, and can be deleted.
const ProbePrefix = ".probe-"

// refusal is the error of a probe that worked and whose answer is No.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func refuse(format string, args ...any) error {
	return &refusal{fmt.Sprintf(format, args...)}
}

// refusalErrnos are the errors with which a kernel says that it cannot or will
// not: not permitted, not built in, or not with this file system.
var refusalErrnos = []error{
	unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.ENODEV, unix.ELOOP,
}

// find turns the error of a probe's work into its finding.
func find(err error) Finding {
	if err == nil {
		return Finding{Answer: Yes}
	}
	var no *refusal
	isErr := func(target error) bool { return errors.Is(err, target) }
	if errors.As(err, &no) || slices.ContainsFunc(refusalErrnos, isErr) {
		return Finding{No, err}
	}
	return Finding{Unknown, err}
}

// probe runs a check in a scratch directory below dir. That the scratch
// directory cannot be made or removed says nothing about the question.
func probe(dir string, check func(*scratch) error) (finding Finding) {
	path, err := os.MkdirTemp(dir, ProbePrefix)
	if err != nil {
		return Finding{Unknown, err}
	}
	s := &scratch{path: path}
	defer func() { finding.Reason = errors.Join(finding.Reason, s.close()) }()
	return find(check(s))
}

// scratch is the directory of one probe.
type scratch struct {
	path string
	open []*os.File
}

// dir makes a directory and opens it.
func (s *scratch) dir(elem ...string) (*os.File, error) {
	path := filepath.Join(s.path, filepath.Join(elem...))
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	s.open = append(s.open, f)
	return f, nil
}

// dirs makes several directories of the scratch directory.
func (s *scratch) dirs(names ...string) ([]*os.File, error) {
	dirs := make([]*os.File, len(names))
	for i, name := range names {
		dir, err := s.dir(name)
		if err != nil {
			return nil, err
		}
		dirs[i] = dir
	}
	return dirs, nil
}

// file makes an empty file.
func (s *scratch) file(elem ...string) error {
	return os.WriteFile(filepath.Join(s.path, filepath.Join(elem...)), nil, 0o600)
}

func (s *scratch) close() error {
	errs := make([]error, 0, len(s.open)+1)
	for _, f := range s.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(append(errs, os.RemoveAll(s.path))...)
}

// ProbeWhiteoutDevice tells whether the character device 0:0 that stands for a
// whiteout can be made in dir, in this user namespace.
func ProbeWhiteoutDevice(dir string) Finding {
	return probe(dir, func(s *scratch) error {
		d, err := s.dir("d")
		if err != nil {
			return err
		}
		if err := MakeWhiteout(int(d.Fd()), "w"); err != nil {
			return err
		}
		if !whiteoutAt(int(d.Fd()), "w") {
			return refuse("the file system turned a character device 0:0 into something else")
		}
		return nil
	})
}

// ProbeXattr tells whether directories in dir can have overlay's extended
// attributes of this namespace.
func ProbeXattr(dir string, ns XattrNamespace) Finding {
	return probe(dir, func(s *scratch) error {
		d, err := s.dir("d")
		if err != nil {
			return err
		}
		if err := ns.SetOpaque(int(d.Fd())); err != nil {
			return err
		}
		if opaque, err := ns.IsOpaque(int(d.Fd())); err != nil || !opaque {
			return errors.Join(refuse("the extended attribute %sopaque was set and is not there", ns), err)
		}
		return nil
	})
}

// ProbeDType tells whether the file system of dir says in a directory's listing
// what kind of file a name is. Overlay hides no whiteouts where it does not.
func ProbeDType(dir string) Finding {
	return probe(dir, func(s *scratch) error {
		ok, err := fs.SupportsDType(s.path)
		if err == nil && !ok {
			return refuse("the file system does not report file types in directory listings (d_type)")
		}
		return err
	})
}

// moduleParameters is where the overlay module shows its defaults.
const moduleParameters = "/sys/module/overlay/parameters"

// ModuleParameter tells whether the overlay feature of that name (index,
// redirect_dir, metacopy) is on by default. Unknown means that this kernel does
// not have it, or that the module is not loaded yet.
func ModuleParameter(name string) Finding {
	if !isBaseName(name) {
		return Finding{Unknown, invalidArgument("%q is not the name of a module parameter", name)}
	}
	data, err := os.ReadFile(filepath.Join(moduleParameters, name))
	if err != nil {
		return Finding{Unknown, sysError("read the overlay module's parameter "+name, err)}
	}
	switch value := strings.TrimSpace(string(data)); value {
	case "Y", "1":
		return Finding{Answer: Yes}
	case "N", "0":
		return Finding{No, refuse("the overlay module's parameter %s is off", name)}
	default:
		return Finding{Unknown, refuse("the overlay module's parameter %s is %q, neither on nor off", name, value)}
	}
}
