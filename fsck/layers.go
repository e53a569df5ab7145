// SPDX-License-Identifier: Apache-2.0

package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/strata-snapshotter/strata/layerstore"
	"github.com/strata-snapshotter/strata/metadata"
)

// layers holds the records of layers against their directories.
func (c *checker) layers(ctx context.Context) error {
	for _, n := range sortedKeys(c.db.Layers) {
		if err := ctx.Err(); err != nil {
			return err
		}
		state := c.survey.Layers[n]
		if !c.layerDir(n, state) {
			continue
		}
		if state.ManifestErr != nil {
			c.manifestGone(n, state)
			continue
		}
		if c.manifest(n, state.Manifest) {
			if err := errors.Join(c.layerUsage(ctx, n, state.Manifest), c.layerData(ctx, n, state.Manifest)); err != nil {
				return err
			}
		}
	}
	return nil
}

// layerDir looks at the directory, and says whether there is one to look into.
func (c *checker) layerDir(n uint64, state layerstore.LayerState) bool {
	if !state.Dir.IsDir() {
		if c.survey.Snapshots[n].Dir.IsDir() && !state.Dir.Exists {
			c.aboutLayer(CodePublishInterrupted, n, fmt.Sprintf("layer %d is still where it was a snapshot", n),
				onDisk(fmt.Sprintf("move snapshots/%d to layers/%d", n, n), func(_ context.Context, i *layerstore.Inspector) error { return i.FinishPublish(n) }))
			return false
		}
		c.aboutLayer(CodeLayerMissing, n, fmt.Sprintf("the directory of layer %d is missing", n))
		return false
	}
	c.mode(rel("layers", n), state.Dir, layerstore.DirMode("layers"))
	if !state.FS.IsDir() {
		c.aboutLayer(CodeLayerFSMissing, n, fmt.Sprintf("layer %d has no directory fs", n))
		return false
	}
	if state.Work || state.Seal {
		c.aboutLayer(CodeWorkLeft, n, fmt.Sprintf("layer %d still has what belongs to the time it was a snapshot", n),
			onDisk(fmt.Sprintf("remove it from layers/%d", n), func(_ context.Context, i *layerstore.Inspector) error { return i.DropWork(n) }), deleteTrash())
	}
	if state.Mounted && state.ManifestErr == nil && state.Manifest.Format == layerstore.FormatDirectory {
		c.aboutLayer(CodeLayerMounted, n, fmt.Sprintf("something is mounted on the directory of layer %d", n))
	}
	return true
}

// manifestGone makes layer.json of what metadata.db says, where nothing else was in it.
// What a shared layer needs of those below is lost: it is private from then on, as the
// chains that it is in have their answers.
func (c *checker) manifestGone(n uint64, state layerstore.LayerState) {
	code, l := CodeManifestUnreadable, c.db.Layers[n]
	if errdefs.IsNotFound(state.ManifestErr) {
		code = CodeManifestMissing
	}
	message := fmt.Sprintf("layer.json of layer %d: %v", n, state.ManifestErr)
	m := layerstore.Manifest{
		Format: layerstore.FormatDirectory, Empty: l.Empty, OpaqueRoot: l.OpaqueRoot, Patch: c.roles.patch[n],
		Bytes: l.Usage.Size, Inodes: l.Usage.Inodes, Created: l.Created,
	}
	if _, external := c.survey.Notes[n]; external || state.Mounted || c.roles.staged[n] || c.db.Incomplete {
		c.aboutLayer(code, n, message) // what is lost would still be asked for
		return
	}
	plan := []Action{onDisk(fmt.Sprintf("write layers/%d/layer.json as metadata.db says", n), func(_ context.Context, i *layerstore.Inspector) error {
		return i.WriteManifest(n, m)
	})}
	if l.DiffID != "" {
		private := inDatabase(fmt.Sprintf("share layer %d with no further image: what it needs of other layers is lost", n), metadata.PrivateFixes(l)...)
		plan = append([]Action{private}, plan...)
	}
	c.aboutLayer(code, n, message, plan...)
}

// manifest holds layer.json against the record, and says whether they are of one layer.
func (c *checker) manifest(n uint64, m layerstore.Manifest) bool {
	l := c.db.Layers[n]
	switch {
	case !m.KnownFormat():
		c.aboutLayer(CodeManifestFormat, n, fmt.Sprintf("layer.json of layer %d has format %q, version %d, which this program does not know", n, m.Format, m.Version))
		return false
	case m.Number != n:
		c.aboutLayer(CodeManifestNumber, n, fmt.Sprintf("layer.json of layer %d is that of layer %d", n, m.Number))
		return false
	case m.DiffID != l.DiffID:
		c.aboutLayer(CodeManifestDiffID, n, fmt.Sprintf("layer %d has diffID %q in metadata.db and %q in layer.json", n, l.DiffID, m.DiffID))
		return false
	}
	if m.Patch != c.roles.patch[n] && !c.db.Incomplete {
		c.aboutLayer(CodeManifestPatch, n, fmt.Sprintf("layer %d: a patch says layer.json: %v, metadata.db: %v", n, m.Patch, c.roles.patch[n]))
	}
	if m.Empty != l.Empty || m.OpaqueRoot != l.OpaqueRoot {
		c.aboutLayer(CodeManifestFlags, n, fmt.Sprintf("layer %d is empty, and opaque: layer.json says %v, %v, metadata.db %v, %v", n, m.Empty, m.OpaqueRoot, l.Empty, l.OpaqueRoot))
	}
	if needs := bytes.TrimSpace(m.Needs); len(needs) > 0 && (needs[0] != '{' || m.Patch) {
		c.aboutLayer(CodeManifestNeeds, n, fmt.Sprintf("what layer %d needs of those below makes no sense", n))
	}
	return true
}

// layerUsage holds the recorded usage against layer.json, and both against the directory
// if that is asked for.
func (c *checker) layerUsage(ctx context.Context, n uint64, m layerstore.Manifest) error {
	l := c.db.Layers[n]
	if l.Usage != usageOf(m) {
		right := l
		right.Usage = usageOf(m)
		c.aboutLayer(CodeUsageLayer, n, fmt.Sprintf("layer %d takes %s, says metadata.db, and %s, says layer.json", n, usageText(l.Usage), usageText(right.Usage)),
			inDatabase(fmt.Sprintf("record what layer.json says of layer %d", n), metadata.LayerFixes(right)...))
		return nil
	}
	if !c.opts.Usage || m.Format == layerstore.FormatExternal {
		return nil
	}
	content, err := c.dir.MeasureLayer(ctx, n)
	if err != nil {
		return err
	}
	measured := snapshots.Usage{Size: content.Bytes, Inodes: content.Inodes}
	if measured == l.Usage {
		return nil
	}
	right := l
	right.Usage = measured
	m.Bytes, m.Inodes = content.Bytes, content.Inodes
	c.aboutLayer(CodeUsageMeasured, n, fmt.Sprintf("layer %d takes %s, and %s are recorded", n, usageText(measured), usageText(l.Usage)),
		inDatabase(fmt.Sprintf("record what layer %d takes", n), metadata.LayerFixes(right)...),
		onDisk(fmt.Sprintf("write it to layers/%d/layer.json", n), func(_ context.Context, i *layerstore.Inspector) error { return i.WriteManifest(n, m) }))
	return nil
}

func usageText(u snapshots.Usage) string {
	return fmt.Sprintf("%d bytes in %d inodes", u.Size, u.Inodes)
}
