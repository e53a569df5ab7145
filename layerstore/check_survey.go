// SPDX-License-Identifier: Apache-2.0

package layerstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// tempMountsDir is where the daemon makes mounts that last as long as a call.
const tempMountsDir = "tmpmounts"

// Stat is what stat(2) says of an entry; the zero value is none.
type Stat struct {
	Exists   bool
	Type     uint32 // S_IFMT
	Mode     uint32 // permission bits, setuid, setgid and sticky
	UID, GID uint32
}

// IsDir says whether it is a directory.
func (s Stat) IsDir() bool { return s.Exists && s.Type == unix.S_IFDIR }

// LayerState is what is in layers/N.
type LayerState struct {
	Dir, FS    Stat
	Work, Seal bool // left of the time it was a snapshot
	Manifest   Manifest
	// ManifestErr: layer.json can't be read. ErrNotFound: it is not there.
	ManifestErr error
	// Mounted: something is mounted on it. Gone: what is mounted was deleted.
	Mounted, Gone bool
}

// SnapshotState is what is in snapshots/N.
type SnapshotState struct {
	Dir, FS, Work Stat
	SealErr       error // there is a seal and it can't be read
}

// NoteState is the note on layer N of an additional store.
type NoteState struct {
	Store, Path, DiffID string
	Err                 error // it can't be read
}

// Survey is what is in a root, but for the files of layers and snapshots.
type Survey struct {
	Root      Stat
	Dirs      map[string]Stat // of the layout, by their names
	Layers    map[uint64]LayerState
	Snapshots map[uint64]SnapshotState
	Notes     map[uint64]NoteState
	// Staging, Trash and Empty are the entries of those directories.
	Staging, Trash, Empty []string
	// Unknown are paths, below the root, that Strata makes none of. Temporary are
	// files whose writing was interrupted.
	Unknown, Temporary []string
	// Volatile: the root was in use without durability when its user ended. Lost: the
	// machine went down meanwhile.
	Volatile, Lost bool
	// Damaged and Kept are the names, in the root and in kept, of what a rebuild of
	// metadata.db set aside.
	Damaged, Kept []string
}

// Survey looks the root over.
func (i *Inspector) Survey() (*Survey, error) {
	v := &surveyor{i: i, survey: &Survey{
		Dirs: map[string]Stat{}, Layers: map[uint64]LayerState{}, Snapshots: map[uint64]SnapshotState{}, Notes: map[uint64]NoteState{},
	}}
	err := errors.Join(v.root(), v.layers(), v.snapshots(), v.notes(), v.volatile())
	slices.Sort(v.survey.Unknown)
	slices.Sort(v.survey.Temporary)
	return v.survey, i.s.rootError(err)
}

type surveyor struct {
	i      *Inspector
	survey *Survey
}

func statAt(dir *os.File, rel string) (Stat, error) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), rel, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return Stat{}, nil
	}
	if err != nil {
		return Stat{}, &os.PathError{Op: "stat", Path: rel, Err: err}
	}
	return Stat{Exists: true, Type: st.Mode & unix.S_IFMT, Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid}, nil
}

// root looks at the directories of the layout and for entries that belong to none.
func (v *surveyor) root() (err error) {
	s := v.i.s
	if v.survey.Root, err = statAt(s.root, "."); err != nil {
		return err
	}
	for _, base := range layoutDirs() {
		if v.survey.Dirs[base], err = statAt(s.root, base); err != nil {
			return err
		}
	}
	known := append(layoutDirs(), lockName, databaseName, logName, volatileFile, ownershipFile, tempMountsDir, keptDir, scrubFile)
	ours := func(base string) bool {
		if strings.HasPrefix(base, damagedPrefix) {
			v.survey.Damaged = append(v.survey.Damaged, base)
			return true
		}
		return slices.Contains(known, base)
	}
	if err := v.strangers(s.root, "", ours); err != nil {
		return err
	}
	slices.Sort(v.survey.Damaged)
	for base, list := range map[string]*[]string{
		stagingDir: &v.survey.Staging, trashDir: &v.survey.Trash, emptyDir: &v.survey.Empty, keptDir: &v.survey.Kept,
	} {
		if st, err := statAt(s.root, base); err != nil || !st.IsDir() {
			if err != nil {
				return err
			}
			continue
		}
		dir, err := openDir(int(s.root.Fd()), base)
		if err != nil {
			return err
		}
		names, err := listDir(dir)
		if err := errors.Join(err, dir.Close()); err != nil {
			return err
		}
		slices.Sort(names)
		*list = names
	}
	return nil
}

func layoutDirs() []string {
	return []string{layersDir, snapshotsDir, stagingDir, trashDir, externalDir, emptyDir}
}

// strangers notes what is in dir, whose path below the root is rel, and not ours.
func (v *surveyor) strangers(dir *os.File, rel string, ours func(string) bool) error {
	names, err := listDir(dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		if ours(base) {
			continue
		}
		list := &v.survey.Unknown
		if whole, cut := strings.CutSuffix(base, temporarySuffix); cut && ours(whole) {
			list = &v.survey.Temporary
		}
		*list = append(*list, filepath.Join(rel, base))
	}
	return nil
}

func isNumber(base string) bool {
	_, ok := parseName(base)
	return ok
}

// each calls fn for every numbered entry of a directory that is open.
func (v *surveyor) each(dir *os.File, base string, fn func(n uint64) error) error {
	if dir == nil {
		return nil
	}
	if err := v.strangers(dir, base, isNumber); err != nil {
		return err
	}
	numbers, err := v.i.s.numbersIn(dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

// inside opens entry n of parent and notes what is not ours in it. What is no directory
// is nil.
func (v *surveyor) inside(parent *os.File, base string, n uint64, ours ...string) (*os.File, Stat, error) {
	st, err := statAt(parent, name(n))
	if err != nil || !st.IsDir() {
		return nil, st, err
	}
	dir, err := openDir(int(parent.Fd()), name(n))
	if err != nil {
		return nil, st, err
	}
	err = v.strangers(dir, filepath.Join(base, name(n)), func(base string) bool { return slices.Contains(ours, base) })
	if err != nil {
		return nil, st, errors.Join(err, dir.Close())
	}
	return dir, st, nil
}

func (v *surveyor) layers() error {
	s := v.i.s
	return v.each(s.layers, layersDir, func(n uint64) (err error) {
		var l LayerState
		dir, st, err := v.inside(s.layers, layersDir, n, fsName, workName, layerFile, sealFile, indexFile)
		l.Dir = st
		if dir == nil {
			v.survey.Layers[n] = l
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		work, err1 := statAt(dir, workName)
		seal, err2 := statAt(dir, sealFile)
		l.Work, l.Seal = work.Exists, seal.Exists
		l.ManifestErr = v.manifest(dir, n, &l.Manifest)
		var err3 error
		if l.FS, err3 = statAt(dir, fsName); l.FS.Exists {
			l.Mounted, l.Gone, err3 = mountedAt(dir, fsName)
		}
		v.survey.Layers[n] = l
		return errors.Join(err1, err2, err3)
	})
}

func (v *surveyor) manifest(dir *os.File, n uint64, m *Manifest) error {
	st, err := statAt(dir, layerFile)
	switch {
	case err != nil:
		return err
	case !st.Exists:
		return fmt.Errorf("there is no %s: %w", layerFile, errdefs.ErrNotFound)
	case st.Type != unix.S_IFREG:
		return fmt.Errorf("%s is no file: %w", layerFile, errdefs.ErrDataLoss)
	}
	*m, err = v.i.s.ReadManifest(n)
	return err
}

func (v *surveyor) snapshots() error {
	s := v.i.s
	return v.each(s.snapshots, snapshotsDir, func(n uint64) (err error) {
		// A crash can leave layer.json: it is written before the directory is moved. The
		// index is written while a layer is extracted.
		dir, st, err := v.inside(s.snapshots, snapshotsDir, n, fsName, workName, sealFile, layerFile, indexFile)
		sn := SnapshotState{Dir: st}
		if dir == nil {
			v.survey.Snapshots[n] = sn
			return err
		}
		defer func() { err = errors.Join(err, dir.Close()) }()
		var err1, err2 error
		sn.FS, err1 = statAt(dir, fsName)
		sn.Work, err2 = statAt(dir, workName)
		var seal json.RawMessage
		if sn.SealErr = s.ReadSeal(n, &seal); errdefs.IsNotFound(sn.SealErr) {
			sn.SealErr = nil
		}
		v.survey.Snapshots[n] = sn
		return errors.Join(err1, err2)
	})
}

func (v *surveyor) notes() error {
	dir := v.i.s.externals.dir
	return v.each(dir, externalDir, func(n uint64) error {
		note, err := readNoteFile(dir, n)
		v.survey.Notes[n] = NoteState{Store: note.Store, Path: note.Path, DiffID: note.DiffID.String(), Err: err}
		return nil
	})
}

func readNoteFile(dir *os.File, n uint64) (note externalNote, err error) {
	f, err := openNote(dir, name(n))
	if err != nil {
		return note, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return note, json.NewDecoder(f).Decode(&note)
}

func (v *surveyor) volatile() error {
	marked, err := v.i.s.readVolatile()
	if err != nil || marked == "" {
		return err
	}
	boot, err := bootID()
	v.survey.Volatile, v.survey.Lost = true, marked != boot
	return err
}
