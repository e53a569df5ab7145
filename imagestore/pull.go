// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Policy says when the registry is asked what a name stands for.
type Policy string

// The policies of a pull.
const (
	// PolicyMissing asks if the image is not here, or is not complete.
	PolicyMissing Policy = "missing"
	// PolicyAlways asks each time, and fetches what is new.
	PolicyAlways Policy = "always"
	// PolicyNever asks never; an image that is not here is ErrNotFound.
	PolicyNever Policy = "never"
)

// PullOptions are what to pull, and how.
type PullOptions struct {
	// Ref is the reference, see Store.Reference.
	Ref string
	// Platform is one as "linux/arm64"; empty means this machine's.
	Platform string
	// Policy is PolicyMissing if it is empty.
	Policy Policy
	// Resolver is the client of registries, see NewResolver.
	Resolver remotes.Resolver
	// Blobs also fetches the blobs of layers that are here already: without them an
	// image can't be saved.
	Blobs bool
	// Progress may be nil.
	Progress Progress
}

// Pull brings an image into the store. If it is complete and o.Policy allows it, nothing
// is asked of anybody. Of its layers those are fetched that are not here, and a download
// that was cut off goes on where it ended. Once Pull returns without an error everything
// is on disk.
//
// ErrReference, ErrPlatform: there is no such thing. ErrNotFound: the registry has no
// such image, or not for this platform. ErrUnavailable: it can't be reached.
// ErrPermissionDenied: it wants other credentials. ErrDataLoss, ErrInvalidArgument: what
// it has is no proper image.
func (s *Store) Pull(ctx context.Context, o PullOptions) (Image, error) {
	ctx = s.Context(ctx)
	name, err := s.Reference(o.Ref)
	if err != nil {
		return Image{}, err
	}
	platform, matcher, err := wantedPlatform(o.Platform)
	if err != nil {
		return Image{}, err
	}
	image, err := s.here(ctx, name, platform, o.Blobs)
	switch {
	case err == nil && o.Policy != PolicyAlways:
		o.Progress.tell(Event{Step: StepComplete, Image: name, Digest: image.Target.Digest})
		return image, nil
	case err != nil && o.Policy == PolicyNever:
		return Image{}, err
	case ctx.Err() != nil:
		return Image{}, ctx.Err()
	}
	log.G(ctx).WithError(err).WithField("image", name).Debug("the registry is asked")
	j := &job{s: s, matcher: matcher, asked: o.Platform != "", progress: o.Progress, blobs: o.Blobs, image: Image{Name: name}}
	err = s.working(ctx, name, func(ctx context.Context) error {
		if err := j.ask(ctx, o.Resolver); err != nil {
			return err
		}
		return s.keep(ctx, j, platform)
	})
	return j.image, err
}

// wantedPlatform is the platform to note with an image, which is none for this machine's
// own, and what to choose manifests by.
func wantedPlatform(platform string) (string, platforms.MatchComparer, error) {
	matcher, err := matcherOf(platform)
	if err != nil || platform == "" {
		return "", matcher, err
	}
	p, err := platforms.Parse(platform)
	if err != nil {
		return "", nil, fmt.Errorf("platform %q: %w: %w", platform, err, ErrPlatform)
	}
	name := platforms.FormatAll(platforms.Normalize(p))
	if name == platforms.FormatAll(platforms.Normalize(platforms.DefaultSpec())) {
		name = ""
	}
	return name, matcher, nil
}

// here finds an image that is complete, for that platform.
func (s *Store) here(ctx context.Context, name, platform string, blobs bool) (Image, error) {
	image, err := s.Get(ctx, name, platform)
	if err != nil {
		return image, err
	}
	if found := image.Labels[LabelPlatform]; found != platform {
		return image, fmt.Errorf("image %s is here for platform %q: %w", name, found, errdefs.ErrNotFound)
	}
	if err := s.Check(ctx, image); err != nil {
		return image, err
	}
	if blobs {
		return image, s.checkBlobs(ctx, image)
	}
	return image, nil
}

// checkBlobs says whether the blobs of all layers are here: ErrNotFound names one that
// is not.
func (s *Store) checkBlobs(ctx context.Context, image Image) error {
	for i, desc := range image.Layers {
		if _, err := s.Content().Info(ctx, desc.Digest); err != nil {
			return fmt.Errorf("image %s: blob of layer %d: %w", image.Name, i+1, err)
		}
	}
	return nil
}

// ask finds out what the name stands for, and where its blobs are.
func (j *job) ask(ctx context.Context, resolver remotes.Resolver) error {
	name := j.image.Name
	j.progress.tell(Event{Step: StepResolving, Image: name})
	_, desc, err := resolver.Resolve(ctx, name)
	if err != nil {
		return fmt.Errorf("pull %s: %w", name, classifyRemote(ctx, err))
	}
	if j.from, err = resolver.Fetcher(ctx, name); err != nil {
		return fmt.Errorf("pull %s: %w", name, classifyRemote(ctx, err))
	}
	j.image.Target = desc
	return nil
}

// keep unpacks a job's image and records it. Nothing refers to what was made for it
// before that, but the lease; then the image does.
func (s *Store) keep(ctx context.Context, j *job, platform string) error {
	if err := j.run(ctx); err != nil {
		return err
	}
	image, err := s.record(ctx, j.image.Name, j.image.Target, platform)
	if err != nil {
		return err
	}
	j.image.Labels, j.image.Created, j.image.Updated = image.Labels, image.CreatedAt, image.UpdatedAt
	j.progress.tell(Event{Step: StepDone, Image: j.image.Name, Digest: j.image.Target.Digest})
	return nil
}

// record makes name stand for target.
func (s *Store) record(ctx context.Context, name string, target ocispec.Descriptor, platform string) (images.Image, error) {
	record := images.Image{Name: name, Target: target}
	if platform != "" {
		record.Labels = map[string]string{LabelPlatform: platform}
	}
	image, err := s.images.Create(ctx, record)
	if errdefs.IsAlreadyExists(err) {
		image, err = s.images.Update(ctx, record, "target", "labels")
	}
	if err != nil {
		return image, fmt.Errorf("record image %s: %w", name, err)
	}
	return image, nil
}
