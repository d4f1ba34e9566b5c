package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	proxyContainer     = "istio-proxy"
	revisionAnnotation = "istio.io/rev"
	hashLabel          = "pod-template-hash"
)

// fleet is one connection for each running proxy. The informer calls it from one goroutine.
type fleet struct {
	ctx     context.Context
	options options
	running map[types.UID]context.CancelFunc
}

func newFleet(ctx context.Context, options options) *fleet {
	return &fleet{ctx: ctx, options: options, running: map[types.UID]context.CancelFunc{}}
}

// see connects a pod whose proxy has started, and disconnects one whose proxy has ended. A pod that is being deleted stays
// connected until it is gone, as its Envoy does while it drains.
func (f *fleet) see(pod *corev1.Pod) {
	if !proxyRuns(pod) {
		f.forget(pod)
		return
	}
	address, known := f.options.istiods[pod.Annotations[revisionAnnotation]]
	if _, connected := f.running[pod.UID]; connected || !known || pod.Status.PodIP == "" {
		return
	}
	ctx, cancel := context.WithCancel(f.ctx)
	f.running[pod.UID] = cancel
	go proxyOf(pod, f.rejects(pod)).run(ctx, address)
}

// forget disconnects a pod.
func (f *fleet) forget(pod *corev1.Pod) {
	if cancel, connected := f.running[pod.UID]; connected {
		cancel()
		delete(f.running, pod.UID)
	}
}

func (f *fleet) rejects(pod *corev1.Pod) bool {
	return f.options.rejecting[fmt.Sprintf("%s/%s@%s", pod.Namespace, workload(pod), pod.Annotations[revisionAnnotation])]
}

// proxyRuns is true for classic and for native sidecars.
func proxyRuns(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return false
	}
	statuses := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	return slices.ContainsFunc(statuses, func(status corev1.ContainerStatus) bool {
		return status.Name == proxyContainer && status.State.Running != nil
	})
}

// workload is the name of what a person would call the pod's workload: the Deployment instead of its ReplicaSet.
func workload(pod *corev1.Pod) string {
	for _, owner := range pod.OwnerReferences {
		if owner.Controller != nil && *owner.Controller {
			if hash := pod.Labels[hashLabel]; owner.Kind == "ReplicaSet" && hash != "" {
				return strings.TrimSuffix(owner.Name, "-"+hash)
			}
			return owner.Name
		}
	}
	return pod.Name
}

// proxyVersion is the tag of the proxy's image.
func proxyVersion(pod *corev1.Pod) string {
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if container.Name == proxyContainer {
			return container.Image[strings.LastIndex(container.Image, ":")+1:]
		}
	}
	return ""
}
