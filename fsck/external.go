// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"context"
	"fmt"

	"github.com/strata-snapshotter/strata/layerstore"
)

// external holds the layers of additional stores against their notes, and looks whether
// they can be used.
func (c *checker) external() {
	for _, n := range sortedKeys(c.db.Layers) {
		state := c.survey.Layers[n]
		if state.FS.IsDir() && state.ManifestErr == nil && state.Manifest.Format == layerstore.FormatExternal {
			c.externalNote(n, state.Manifest)
			c.externalMount(n, state)
		}
	}
	for _, n := range sortedKeys(c.survey.Notes) {
		state, ok := c.survey.Layers[n]
		if ok && (state.ManifestErr != nil || state.Manifest.Format == layerstore.FormatExternal) {
			continue
		}
		if _, recorded := c.db.Layers[n]; recorded && !ok {
			continue // the layer is missing, and its note says where it came from
		}
		file := rel("external", n)
		c.add(CodeExternalNoteOrphan, Subject{Number: n, Path: c.dir.Path(file)}, fmt.Sprintf("the note is about layer %d, which is in no additional store", n),
			onDisk("remove "+file, func(_ context.Context, i *layerstore.Inspector) error { return i.RemoveFile(file) }))
	}
}

func (c *checker) externalNote(n uint64, m layerstore.Manifest) {
	note, ok := c.survey.Notes[n]
	write := onDisk(fmt.Sprintf("write external/%d as layer.json says", n), func(_ context.Context, i *layerstore.Inspector) error {
		return i.WriteNote(n, m)
	})
	switch {
	case !ok:
		c.aboutLayer(CodeExternalNoteMissing, n, fmt.Sprintf("there is no note on external layer %d: it would not be mounted", n), write)
	case note.Err != nil:
		c.aboutLayer(CodeExternalNoteWrong, n, fmt.Sprintf("the note on external layer %d can't be read: %v", n, note.Err), write)
	case note.Store != m.Store || note.Path != m.StoreLayer || note.DiffID != m.DiffID.String():
		c.aboutLayer(CodeExternalNoteWrong, n, fmt.Sprintf("the note on external layer %d leads to %s in %s, and layer.json to %s in %s", n, note.Path, note.Store, m.StoreLayer, m.Store), write)
	}
}

func (c *checker) externalMount(n uint64, state layerstore.LayerState) {
	if state.Mounted && !state.Gone {
		return
	}
	if err := c.dir.OpenStoreLayer(state.Manifest); err != nil {
		c.aboutLayer(CodeExternalStore, n, fmt.Sprintf("layer %d: %v", n, err))
		return
	}
	c.aboutLayer(CodeExternalUnmounted, n, fmt.Sprintf("external layer %d is not mounted", n))
}
