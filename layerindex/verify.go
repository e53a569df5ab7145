// SPDX-License-Identifier: Apache-2.0

package layerindex

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// Kind is what is wrong with an entry.
type Kind string

// Kinds of problems.
const (
	// Missing: it is not there.
	Missing Kind = "missing"
	// Unexpected: the layer has no such entry. What is in it is not named.
	Unexpected Kind = "unexpected"
	// OtherType: it is something else, or another device.
	OtherType Kind = "type"
	// Mode, Owner, Size, Time and Attributes (extended ones) differ.
	Mode       Kind = "mode"
	Owner      Kind = "owner"
	Size       Kind = "size"
	Time       Kind = "mtime"
	Attributes Kind = "xattr"
	// LinkTarget: a symbolic link leads elsewhere, or a hard link is another file.
	LinkTarget Kind = "link"
	// Content has another checksum, or can't be read.
	Content Kind = "content"
)

// Problem is an entry that is not what the index says.
type Problem struct {
	Kind Kind
	Path string // as in Record
	// Text says what it is, and what it should be.
	Text string
}

// Options say how a layer is verified.
type Options struct {
	// Pace may slow it down, see Pace.
	Pace Pace
	// MetadataOnly leaves the content of files out.
	MetadataOnly bool
}

// Stats are what was looked at.
type Stats struct {
	Entries int64
	Bytes   int64 // of content
}

// Verify holds the tree below dir against its index and calls report for what differs. It
// follows no links, reads every file once, and has at most a few directories open.
// Besides the names of one directory at a time (readdir's batches) and one record, it
// keeps nothing, however large the layer is; only where there is something unexpected it
// takes a megabyte to find out what, and goes through the names once more for every
// 131,072 entries.
//
// ErrDataLoss: the index is damaged; what was reported until then is right.
// ErrFailedPrecondition: a newer Strata wrote it. Other errors, those of report and of
// the file system, are ErrUnavailable unless they have a class, and those of ctx are what
// they are. A file or attribute that can't be read is a problem, not an error.
func Verify(ctx context.Context, dir, index *os.File, opts Options, report func(Problem) error) (stats Stats, err error) {
	st, err := index.Stat()
	if err != nil {
		return stats, classify(err)
	}
	open := func() (*Reader, error) { return NewReader(index, st.Size()) }
	r, err := open()
	if err != nil {
		return stats, classify(err)
	}
	v := &verifier{
		opts: opts, report: report, content: newContent(ctx, opts.Pace),
		at: place{root: dir}, target: place{root: dir}, perPass: passEntries,
	}
	defer func() { err = classify(errors.Join(err, v.at.close(), v.target.close())) }()
	err = v.all(r)
	stats = Stats{Entries: v.entries, Bytes: v.content.read}
	if err != nil || v.names == v.present {
		return stats, err
	}
	return stats, v.unexpected(open)
}

type verifier struct {
	opts    Options
	report  func(Problem) error
	content *content
	at      place // where entries are
	target  place // where hard links lead
	d       Describer
	got     Record
	entries int64
	// present counts entries of the index that are there, names what is in its
	// directories: if that is more there is something that the index does not have.
	present, names int64
	perPass        uint64 // entries that one pass over the names remembers
}

func (v *verifier) all(r *Reader) error {
	var want Record
	for {
		err := r.Next(&want)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = v.content.wait(entryCost)
		}
		if err == nil {
			v.entries++
			err = v.entry(&want)
		}
		if err != nil {
			return err
		}
	}
}

func (v *verifier) problem(kind Kind, path, format string, args ...any) error {
	return v.report(Problem{Kind: kind, Path: path, Text: fmt.Sprintf(format, args...)})
}

// isGone says whether an entry can't be there: what it was in is gone, or no directory.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV)
}

func (v *verifier) entry(want *Record) error {
	dirfd, base, err := v.at.parent(want.Path)
	if isGone(err) {
		return v.problem(Missing, want.Path, "it is not there")
	}
	if err != nil {
		return err
	}
	v.got.Path = want.Path
	st, err := v.d.At(dirfd, base, &v.got)
	if isGone(err) {
		return v.problem(Missing, want.Path, "it is not there")
	}
	if st.Nlink > 0 && want.Path != "" {
		v.present++
	}
	if unreadable(err) {
		return v.problem(Content, want.Path, "it can't be read: %v", err)
	}
	if err != nil {
		return fmt.Errorf("look at %q: %w", want.Path, err)
	}
	if want.Type == Link {
		return v.hardLink(want, &st)
	}
	if v.got.Type != want.Type {
		return v.problem(OtherType, want.Path, "it is %s and should be %s", v.got.Type, want.Type)
	}
	if want.Type == Whiteout {
		return nil
	}
	if err := v.attrs(want); err != nil {
		return err
	}
	return v.inside(want, dirfd, base)
}

// unreadable is what a disk or a damaged file system answers.
func unreadable(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EILSEQ)
}

// hardLink wants two names to be one file.
func (v *verifier) hardLink(want *Record, st *unix.Stat_t) error {
	var target unix.Stat_t
	dirfd, base, err := v.target.parent(want.Link)
	if err == nil {
		err = unix.Fstatat(dirfd, base, &target, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !isGone(err) && !unreadable(err) {
		return fmt.Errorf("look at %q: %w", want.Link, err)
	}
	if err != nil || target.Ino != st.Ino || target.Dev != st.Dev {
		return v.problem(LinkTarget, want.Path, "it is not the same file as %q", want.Link)
	}
	return nil
}

func (v *verifier) attrs(want *Record) error {
	got, path := &v.got, want.Path
	var err error
	if got.Mode != want.Mode {
		err = v.problem(Mode, path, "mode %04o, should be %04o", got.Mode, want.Mode)
	}
	if err == nil && (got.UID != want.UID || got.GID != want.GID) {
		err = v.problem(Owner, path, "belongs to %d:%d, should to %d:%d", got.UID, got.GID, want.UID, want.GID)
	}
	if err == nil && (got.Sec != want.Sec || got.Nsec != want.Nsec) {
		err = v.problem(Time, path, "modified at %d.%09d, should be %d.%09d", got.Sec, got.Nsec, want.Sec, want.Nsec)
	}
	if err == nil && !slices.Equal(got.Xattrs, want.Xattrs) {
		err = v.problem(Attributes, path, "%s", xattrText(got.Xattrs, want.Xattrs))
	}
	if err == nil && (got.Major != want.Major || got.Minor != want.Minor) {
		err = v.problem(OtherType, path, "device %d:%d, should be %d:%d", got.Major, got.Minor, want.Major, want.Minor)
	}
	return err
}

// xattrText names the attributes that differ.
func xattrText(got, want []Xattr) string {
	names := map[string]bool{}
	for _, x := range slices.Concat(got, want) {
		if slices.Contains(got, x) != slices.Contains(want, x) {
			names[x.Name] = true
		}
	}
	var list []string
	for name := range names {
		list = append(list, fmt.Sprintf("%q", name))
	}
	slices.Sort(list)
	const most = 5
	if len(list) > most {
		list = append(list[:most], "and more")
	}
	return "attributes differ: " + strings.Join(list, ", ")
}

// inside looks at what an entry holds.
func (v *verifier) inside(want *Record, dirfd int, base string) error {
	switch want.Type {
	case Dir:
		return v.count(want.Path)
	case Symlink:
		if v.got.Link != want.Link {
			return v.problem(LinkTarget, want.Path, "it leads to %q, should to %q", v.got.Link, want.Link)
		}
	case Regular:
		if v.got.Size != want.Size {
			return v.problem(Size, want.Path, "%d bytes, should be %d", v.got.Size, want.Size)
		}
		if !v.opts.MetadataOnly {
			return v.sum(want, dirfd, base)
		}
	default: // nothing
	}
	return nil
}

func (v *verifier) sum(want *Record, dirfd int, base string) error {
	sum, err := v.content.file(dirfd, base, want.Size, want.Sparse)
	switch {
	case isGone(err):
		return v.problem(Missing, want.Path, "it is not there")
	case unreadable(err):
		return v.problem(Content, want.Path, "it can't be read: %v", err)
	case err != nil:
		return fmt.Errorf("read %q: %w", want.Path, err)
	case sum != want.Sum:
		return v.problem(Content, want.Path, "its content has the checksum %016x, should have %016x", sum, want.Sum)
	}
	return nil
}

// count counts the names in a directory.
func (v *verifier) count(path string) (err error) {
	dir, err := openBeneath(v.at.root, path)
	if isGone(err) {
		return v.problem(Missing, path, "it is not there")
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	return eachName(dir, func(string) error { v.names++; return nil })
}

// classify gives the errors of a file system the class that their reader can act on.
func classify(err error) error {
	if err == nil || !errors.Is(errdefs.Resolve(err), errdefs.ErrUnknown) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w (%w)", err, errdefs.ErrUnavailable)
}
