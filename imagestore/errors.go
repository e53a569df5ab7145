// SPDX-License-Identifier: Apache-2.0

package imagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteserrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// classifyRemote gives an error of containerd's registry client a class: the client's
// own are those of net and net/http, and statuses.
func classifyRemote(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || hasClass(err) {
		return err
	}
	var status remoteserrors.ErrUnexpectedStatus
	var network net.Error
	var class error = errdefs.ErrUnknown
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		class = errdefs.ErrResourceExhausted
	case errors.Is(err, docker.ErrInvalidAuthorization):
		class = errdefs.ErrPermissionDenied
	case errors.As(err, &status):
		class = classOf(status.StatusCode)
	case errors.As(err, &network), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		class = errdefs.ErrUnavailable
	}
	return fmt.Errorf("%w (%w)", err, class)
}

// hasClass says whether there is more to know of an error than that it is one.
func hasClass(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsUnavailable(err) || errdefs.IsInvalidArgument(err) ||
		errdefs.IsDataLoss(err) || errdefs.IsPermissionDenied(err) || errdefs.IsResourceExhausted(err)
}

func classOf(status int) error {
	switch {
	case status == http.StatusNotFound:
		return errdefs.ErrNotFound
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return errdefs.ErrPermissionDenied
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return errdefs.ErrUnavailable
	}
	return errdefs.ErrUnknown
}
