// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"github.com/opencontainers/go-digest"
)

// Step is what an Event is about.
type Step string

// The steps of an image, in the order in which they come, and those of each of its layers
// between StepUnpacking and StepDone.
const (
	// StepComplete: everything is here, and nothing else is done.
	StepComplete Step = "complete"
	// StepResolving: the registry is asked what the name stands for.
	StepResolving Step = "resolving"
	// StepReading: an archive or layout, which Event.Image names, is read.
	StepReading Step = "reading"
	// StepUnpacking: manifest and configuration are here; Event.Layers lists the layers.
	StepUnpacking Step = "unpacking"
	// StepDone: the image can be used.
	StepDone Step = "done"

	// StepExists: the layer is here already.
	StepExists Step = "exists"
	// StepDownload: Event.Done of Event.Total bytes of the blob are here.
	StepDownload Step = "download"
	// StepUnpack: Event.Done of Event.Total bytes of the blob are unpacked.
	StepUnpack Step = "unpack"
	// StepLayerDone: the layer is in its place.
	StepLayerDone Step = "layer-done"
)

// Event is one step of a pull or load.
type Event struct {
	Step  Step   `json:"step"`
	Image string `json:"image"`
	// Digest is that of what the name stands for, once it is known, or of the layer's blob.
	Digest digest.Digest `json:"digest,omitempty"`
	// Index is the layer's place in the image, from the bottom, from 1. 0: the event is
	// about the whole image.
	Index int `json:"index,omitempty"`
	// Done and Total are bytes of the blob.
	Done  int64 `json:"done,omitempty"`
	Total int64 `json:"total,omitempty"`
	// Layers are digests and sizes of the blobs, bottom first.
	Layers []Layer `json:"layers,omitempty"`
}

// Layer is a layer as a manifest lists it.
type Layer struct {
	Digest digest.Digest `json:"digest"`
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // of the blob, in bytes
}

// Progress is told what happens. It is called by several goroutines, often, and should
// return at once.
type Progress func(Event)

func (p Progress) tell(e Event) {
	if p != nil {
		p(e)
	}
}
