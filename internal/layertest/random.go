// SPDX-License-Identifier: Apache-2.0

package layertest

import (
	"strings"

	"pgregory.net/rapid"
)

// names is small, so that entries meet: files where directories were, links where
// a layer above has directories, whiteouts of what is there.
var names = []string{"a", "b", "c"}

// kinds lists the types of random entries as often as they should come up.
var kinds = []string{
	TypeFile, TypeFile, TypeFile, TypeFile, TypeDir, TypeDir, TypeDir, TypeDir, "whiteout", "whiteout", "whiteout",
	"opaque", TypeSymlink, TypeSymlink, TypeHardlink, TypeHardlink, TypeFifo, TypeChar,
}

// Image draws an image of two to six layers. Some layers come twice.
func Image() *rapid.Generator[[]Layer] { return rapid.Custom(drawImage) }

func drawImage(t *rapid.T) []Layer {
	m := NewModel()
	var layers []Layer
	var files []string
	for range rapid.IntRange(2, 6).Draw(t, "layers") {
		if len(layers) > 0 && rapid.IntRange(0, 4).Draw(t, "again") == 4 {
			again := rapid.SampledFrom(layers).Draw(t, "which")
			layers = append(layers, again)
			m.Begin(again)
			for _, e := range again {
				if m.Apply(e) != nil {
					return layers // refused as a whole: nothing above it matters
				}
			}
			m.End()
			continue
		}
		m.Begin(nil)
		var layer Layer
		for range rapid.IntRange(0, 6).Draw(t, "entries") {
			e := drawEntry(t, files)
			// Most images should be good to the end.
			if m.Refuses(e) && rapid.IntRange(0, 30).Draw(t, "refused") != 30 {
				continue
			}
			layer = append(layer, e)
			if m.Apply(e) != nil {
				return append(layers, layer)
			}
			if e.Type == TypeFile {
				files = append(files, e.Name)
			}
		}
		m.End()
		layers = append(layers, layer)
	}
	return layers
}

func drawEntry(t *rapid.T, files []string) Entry {
	p := drawPath(t)
	var e Entry
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "whiteout":
		return Whiteout(p)
	case "opaque":
		if strings.Contains(p, "/") || rapid.IntRange(0, 9).Draw(t, "root") > 0 {
			return Opaque(p)
		}
		return Opaque("")
	case TypeFile:
		e = File(p, rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "data"))
	case TypeDir:
		e = Dir(p + rapid.SampledFrom([]string{"", "/"}).Draw(t, "slash"))
	case TypeSymlink:
		return drawOwner(t, Symlink(p, drawTarget(t)))
	case TypeHardlink:
		e = Hardlink(p, drawPath(t))
		if len(files) > 0 && rapid.IntRange(0, 4).Draw(t, "known") > 0 {
			e.Link = rapid.SampledFrom(files).Draw(t, "file")
		}
	case TypeFifo:
		e = Fifo(p)
	case TypeChar:
		e = Device(TypeChar, p, 1, 3)
	}
	return drawMetadata(t, e)
}

func drawPath(t *rapid.T) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(names), 1, 3).Draw(t, "path"), "/")
}

// drawTarget draws where a symlink points. ".." comes first or not at all: after
// a link it means one thing to the kernel and another to path.Clean.
func drawTarget(t *rapid.T) string {
	prefix := rapid.SampledFrom([]string{"", "", "/", "../", "../../../"}).Draw(t, "prefix")
	return prefix + drawPath(t)
}

func drawOwner(t *rapid.T, e Entry) Entry {
	return e.Owner(rapid.SampledFrom([]int{0, 5}).Draw(t, "uid"), rapid.SampledFrom([]int{0, 7}).Draw(t, "gid"))
}

func drawMetadata(t *rapid.T, e Entry) Entry {
	e = drawOwner(t, e)
	e.Mode = rapid.SampledFrom([]Octal{0o644, 0o755, 0o700, 0o1777, 0o2775, 0o4755}).Draw(t, "mode")
	e.Mtime = rapid.SampledFrom([]int64{Epoch, 1_111_111_111}).Draw(t, "mtime")
	e.Nsec = rapid.SampledFrom([]int64{0, 123456789}).Draw(t, "nsec")
	if e.Type != TypeFile && e.Type != TypeDir {
		return e
	}
	if value := rapid.SampledFrom([]string{"", "", "", "v", "w"}).Draw(t, "xattr"); value != "" {
		e = e.Xattr("user.k"+value, value)
	}
	return e
}
