// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/strata-snapshotter/strata/storeview"
)

// containerdPatience bounds how long a socket that nobody answers at is waited for.
const containerdPatience = 5 * time.Second

// containerdNames asks a containerd for its images and containers, in all namespaces.
func containerdNames(ctx context.Context, address string) (names storeview.Names, err error) {
	// The client would try for long to reach a socket that nobody listens at.
	conn, err := net.DialTimeout("unix", address, containerdPatience)
	if err != nil {
		return names, err
	}
	if err := conn.Close(); err != nil {
		return names, err
	}
	client, err := containerd.New(address, containerd.WithTimeout(containerdPatience))
	if err != nil {
		return names, err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	list, err := client.NamespaceService().List(ctx)
	if err != nil {
		return names, fmt.Errorf("namespaces: %w", err)
	}
	for _, ns := range list {
		if err := addNames(namespaces.WithNamespace(ctx, ns), client, ns, &names); err != nil {
			return names, fmt.Errorf("namespace %s: %w", ns, err)
		}
	}
	return names, nil
}

func addNames(ctx context.Context, client *containerd.Client, ns string, names *storeview.Names) error {
	list, err := client.ImageService().List(ctx)
	if err != nil {
		return fmt.Errorf("images: %w", err)
	}
	for _, image := range list {
		chains, err := storeview.ChainIDs(ctx, client.ContentStore(), image.Target)
		if err != nil {
			return fmt.Errorf("image %s: %w", image.Name, err)
		}
		names.Images = append(names.Images, storeview.NamedImage{Namespace: ns, Name: image.Name, Digest: image.Target.Digest, ChainIDs: chains})
	}
	containers, err := client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("containers: %w", err)
	}
	for _, c := range containers {
		names.Containers = append(names.Containers, storeview.NamedContainer{Namespace: ns, ID: c.ID, Image: c.Image, Key: c.SnapshotKey})
	}
	return nil
}
