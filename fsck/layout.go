// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/strata-snapshotter/strata/layerstore"
)

func rel(base string, n uint64) string { return base + "/" + strconv.FormatUint(n, 10) }

func (c *checker) path(base string, n uint64) string { return c.dir.Path(rel(base, n)) }

// layout looks at the root and its directories, without their contents.
func (c *checker) layout() {
	c.mode(".", c.survey.Root, 0o700)
	for _, base := range slices.Sorted(maps.Keys(c.survey.Dirs)) {
		st := c.survey.Dirs[base]
		subject := Subject{Path: c.dir.Path(base)}
		switch {
		case !st.Exists:
			c.add(CodeDirMissing, subject, fmt.Sprintf("directory %s is missing", base), onDisk("make the directory "+base, func(_ context.Context, i *layerstore.Inspector) error {
				return i.MakeDir(base)
			}))
		case !st.IsDir():
			c.add(CodeDirInvalid, subject, fmt.Sprintf("%s is no directory", base))
		default:
			c.mode(base, st, layerstore.DirMode(base))
		}
	}
	c.contents()
	switch {
	case c.survey.Lost:
		c.add(CodeVolatileLost, Subject{Path: c.dir.Path("volatile")}, "the machine went down while the root was used without durability: layers may be incomplete")
	case c.survey.Volatile:
		c.add(CodeVolatileLeft, Subject{Path: c.dir.Path("volatile")}, "the root was used without durability by a process that did not end in order")
	}
}

// mode wants a directory to be this user's, with the mode given.
func (c *checker) mode(rel string, st layerstore.Stat, mode uint32) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	if st.Mode == mode && st.UID == uid && st.GID == gid {
		return
	}
	c.add(CodeDirMode, Subject{Path: c.dir.Path(rel)},
		fmt.Sprintf("%s has mode %04o and belongs to %d:%d; it should have %04o and belong to %d:%d", rel, st.Mode, st.UID, st.GID, mode, uid, gid),
		onDisk(fmt.Sprintf("set mode and owner of %s", rel), func(_ context.Context, i *layerstore.Inspector) error { return i.FixDir(rel, mode) }))
}

// contents looks for what crashes and strangers left.
func (c *checker) contents() {
	for _, item := range c.survey.Staging {
		c.add(CodeStagingLeft, Subject{Path: c.dir.Path(filepath.Join("staging", item))}, "a directory that was being put together",
			toTrash("staging/"+item, func(i *layerstore.Inspector) error { return i.TrashStaging(item) })...)
	}
	for _, item := range c.survey.Trash {
		c.add(CodeTrashLeft, Subject{Path: c.dir.Path(filepath.Join("trash", item))}, "it waits to be deleted", deleteTrash())
	}
	for _, item := range c.survey.Empty {
		c.add(CodeEmptyUsed, Subject{Path: c.dir.Path(filepath.Join("empty", item))}, "views of nothing show what is in this directory, and nothing may be",
			toTrash("empty/"+item, func(i *layerstore.Inspector) error { return i.TrashEmpty(item) })...)
	}
	for _, rel := range c.survey.Temporary {
		c.add(CodeTemporaryLeft, Subject{Path: c.dir.Path(rel)}, "a file whose writing was interrupted",
			onDisk("remove "+rel, func(_ context.Context, i *layerstore.Inspector) error { return i.RemoveFile(rel) }))
	}
	for _, rel := range c.survey.Damaged {
		c.add(CodeDamagedDatabase, Subject{Path: c.dir.Path(rel)}, "a metadata.db that was replaced by a new one")
	}
	for _, item := range c.survey.Kept {
		c.add(CodeKept, Subject{Path: c.dir.Path(filepath.Join("kept", item))}, "what nothing named when metadata.db was made anew")
	}
	for _, rel := range c.survey.Unknown {
		c.add(CodeUnknownFile, Subject{Path: c.dir.Path(rel)}, "Strata makes nothing of that name")
	}
}

func toTrash(what string, do func(*layerstore.Inspector) error) []Action {
	return []Action{
		onDisk("move "+what+" to the trash", func(_ context.Context, i *layerstore.Inspector) error { return do(i) }),
		deleteTrash(),
	}
}

func deleteTrash() Action {
	return onDisk(emptyTheTrash, func(ctx context.Context, i *layerstore.Inspector) error { return i.EmptyTrash(ctx) })
}

// emptyTheTrash is done once, whoever asks for it.
const emptyTheTrash = "delete what is in the trash"
