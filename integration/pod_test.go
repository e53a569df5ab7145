// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/strata-snapshotter/strata/internal/testimage"
)

// criNamespace is the one in which containerd's CRI keeps everything.
const criNamespace = "k8s.io"

// podNode is a node with the kubelet's view of it.
type podNode struct {
	*node
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	image   string
}

func newPodNode(t *testing.T) *podNode {
	t.Helper()
	needProgram(t, "runc")
	host := startRegistry(t)
	pause := host + "/pause:3.10"
	push(t, pause, pauseImage(t))
	push(t, host+"/sample:1", sample(t))
	bin, conf := writeCNI(t)
	n := newNode(t, settings{unpacks: 3, cri: &criSettings{pause: pause, cniBin: bin, cniConf: conf}})
	n.namespaces = append(n.namespaces, criNamespace)
	conn, err := grpc.NewClient("unix://"+n.address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing depends on it
	p := &podNode{node: n, runtime: cri.NewRuntimeServiceClient(conn), images: cri.NewImageServiceClient(conn), image: host + "/sample:1"}
	t.Cleanup(p.removePods)
	eventually(t, "the CRI is ready", p.ready)
	return p
}

// removePods removes what a failed test left: only the CRI can undo a pod's network.
func (p *podNode) removePods() {
	ctx := p.ctx()
	list, err := p.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	p.report("listing the pods", err)
	for _, pod := range list.GetItems() {
		_, err := p.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.GetId()})
		p.report("stopping a pod", err)
		_, err = p.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.GetId()})
		p.report("removing a pod", err)
	}
}

func (p *podNode) ready() error {
	status, err := p.runtime.Status(p.ctx(), &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range status.GetStatus().GetConditions() {
		if !c.GetStatus() && (c.GetType() == "RuntimeReady" || c.GetType() == "NetworkReady") {
			err = errors.Join(err, fmt.Errorf("%s: %s %s", c.GetType(), c.GetReason(), c.GetMessage()))
		}
	}
	return err
}

func pauseImage(t *testing.T) v1.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pause")
	t.Setenv("CGO_ENABLED", "0") // an image has no C library
	if err := goBuild(path, "./cmd/pause", "-ldflags", "-s -w"); err != nil {
		t.Fatalf("building pause: %v", err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := testimage.Build([]string{"/pause"}, testimage.Layer{testimage.Program("pause", program)})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// writeCNI sets up a bridge network of our own: an unusual subnet, no masquerading
// (so that no firewall rule of the host is touched), addresses kept in a temporary
// directory. The bridge goes at the end.
func writeCNI(t *testing.T) (bin, conf string) {
	t.Helper()
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := os.Stat(filepath.Join(dir, "bridge")); err == nil {
			bin = dir
			break
		}
	}
	if bin == "" {
		unable(t, "no CNI plugins: install the package containernetworking-plugins")
	}
	conf = t.TempDir()
	bridge := fmt.Sprintf("strata%d", os.Getpid())
	writeFile(t, filepath.Join(conf, "10-strata.conflist"), fmt.Sprintf(`{
  "cniVersion": "0.4.0", "name": %q, "plugins": [{
    "type": "bridge", "bridge": %q, "isGateway": true, "ipMasq": false,
    "ipam": {"type": "host-local", "dataDir": %q, "ranges": [[{"subnet": "10.213.77.0/24"}]]}
  }]}`, bridge, bridge, t.TempDir()))
	t.Cleanup(func() {
		if _, err := os.Stat("/sys/class/net/" + bridge); err != nil {
			return
		}
		if out, err := exec.Command("ip", "link", "delete", bridge).CombinedOutput(); err != nil {
			t.Errorf("removing the bridge: %v: %s", err, out)
		}
	})
	return bin, conf
}

func (p *podNode) sandboxConfig(userns *cri.UserNamespace) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "1"},
		LogDirectory: p.dir,
		Linux: &cri.LinuxPodSandboxConfig{
			CgroupParent: "/" + p.namespace,
			SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER, UsernsOptions: userns},
			},
		},
	}
}

// A pod's life through the interface that the kubelet uses.
func TestPod(t *testing.T) {
	p := newPodNode(t)
	ctx := p.ctx()
	pod, container := p.runPod(ctx, nil)
	expect(t, "the image's files in a pod", p.execSync(ctx, container, proof), proven)
	expect(t, "the pod's network", p.execSync(ctx, container, "test -e /sys/class/net/eth0 && echo there"), "there")
	p.execSync(ctx, container, "head -c 1048576 /dev/zero >/data/big; sync")
	p.checkStats(ctx, container)
	p.checkImageFs(ctx)
	p.removePod(ctx, pod, container)
	if _, err := p.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: p.image}}); err != nil {
		t.Errorf("removing the image: %v", err)
	}
}

// A pod in a user namespace (hostUsers: false) needs remap-ids of the snapshotter.
func TestPodInUserNamespace(t *testing.T) {
	p := newPodNode(t)
	ctx := p.ctx()
	ids := []*cri.IDMapping{{HostId: hostID, ContainerId: 0, Length: 65536}}
	pod, container := p.runPod(ctx, &cri.UserNamespace{Mode: cri.NamespaceMode_POD, Uids: ids, Gids: ids})
	expect(t, "the image's files in a pod", p.execSync(ctx, container, proof), proven)
	expect(t, "root's id outside", p.execSync(ctx, container, "cat /proc/self/uid_map | head -n1 | { read a b c; echo $a $b $c; }"),
		fmt.Sprintf("0 %d 65536", hostID))
	p.execSync(ctx, container, "echo x >/mine")
	p.inCRI(func() { p.checkOwners(container, map[string]uint32{"mine": hostID}) })
	p.removePod(ctx, pod, container)
}

// inCRI runs f with the CRI's namespace as the node's.
func (p *podNode) inCRI(f func()) {
	own := p.namespace
	p.namespace = criNamespace
	defer func() { p.namespace = own }()
	f()
}

func (p *podNode) runPod(ctx context.Context, userns *cri.UserNamespace) (pod, container string) {
	p.t.Helper()
	image := &cri.ImageSpec{Image: p.image}
	if _, err := p.images.PullImage(ctx, &cri.PullImageRequest{Image: image}); err != nil {
		p.t.Fatalf("pulling: %v", err)
	}
	config := p.sandboxConfig(userns)
	sandbox, err := p.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		p.t.Fatalf("running the sandbox: %v", err)
	}
	created, err := p.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: sandbox.GetPodSandboxId(), SandboxConfig: config,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "main"}, Image: image, Command: idle, LogPath: "main.log",
			Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
				NamespaceOptions: config.GetLinux().GetSecurityContext().GetNamespaceOptions(),
			}},
		},
	})
	if err != nil {
		p.t.Fatalf("creating the container: %v", err)
	}
	if _, err := p.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: created.GetContainerId()}); err != nil {
		p.t.Fatalf("starting the container: %v", err)
	}
	return sandbox.GetPodSandboxId(), created.GetContainerId()
}

func (p *podNode) execSync(ctx context.Context, container, script string) string {
	p.t.Helper()
	r, err := p.runtime.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: container, Cmd: []string{"/bin/sh", "-ec", script}, Timeout: 30})
	if err != nil {
		p.t.Fatalf("exec %q: %v", script, err)
	}
	if r.GetExitCode() != 0 {
		p.t.Fatalf("exec %q: exit code %d: %s", script, r.GetExitCode(), r.GetStderr())
	}
	return string(r.GetStdout())
}

// checkStats waits until the container's megabyte shows in the usage of its snapshot,
// which containerd collects every second.
func (p *podNode) checkStats(ctx context.Context, container string) {
	p.t.Helper()
	eventually(p.t, "the container's usage", func() error {
		r, err := p.runtime.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: container})
		if err != nil {
			return err
		}
		layer := r.GetStats().GetWritableLayer()
		if used := layer.GetUsedBytes().GetValue(); used < 1<<20 {
			return fmt.Errorf("%d bytes in the writable layer", used)
		}
		return nil
	})
}

// checkImageFs holds that the kubelet is told where the images really are: it watches
// that file system for pressure.
func (p *podNode) checkImageFs(ctx context.Context) {
	p.t.Helper()
	r, err := p.images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		p.t.Errorf("ImageFsInfo: %v", err)
		return
	}
	for _, fs := range r.GetImageFilesystems() {
		if p.settings.snapshotter == "strata" {
			expect(p.t, "the image file system's place", fs.GetFsId().GetMountpoint(), p.root)
		}
		if fs.GetUsedBytes().GetValue() == 0 || fs.GetInodesUsed().GetValue() == 0 {
			p.t.Errorf("image file system: %v", fs)
		}
	}
	if len(r.GetImageFilesystems()) != 1 {
		p.t.Errorf("%d image file systems, want 1", len(r.GetImageFilesystems()))
	}
}

func (p *podNode) removePod(ctx context.Context, pod, container string) {
	p.t.Helper()
	_, err := p.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: container})
	p.report("stopping the container", err)
	_, err = p.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: container})
	p.report("removing the container", err)
	_, err = p.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod})
	p.report("stopping the pod", err)
	_, err = p.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod})
	p.report("removing the pod", err)
}
