package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"
)

const (
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	// again is how long a lost connection stays lost.
	again = 500 * time.Millisecond
)

// proxy is the part of one Envoy that talks to istiod.
type proxy struct {
	node    *core.Node
	rejects bool
}

func proxyOf(pod *corev1.Pod, rejects bool) *proxy {
	labels := map[string]any{}
	for key, value := range pod.Labels {
		labels[key] = value
	}
	metadata, err := structpb.NewStruct(map[string]any{
		"NAME":          pod.Name,
		"NAMESPACE":     pod.Namespace,
		"CLUSTER_ID":    "Kubernetes",
		"ISTIO_VERSION": proxyVersion(pod),
		"WORKLOAD_NAME": workload(pod),
		"LABELS":        labels,
	})
	if err != nil {
		// Strings only: the API server admits no label that is not UTF-8.
		log.Fatal(err)
	}
	id := fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", pod.Status.PodIP, pod.Name, pod.Namespace, pod.Namespace)
	return &proxy{node: &core.Node{Id: id, Metadata: metadata}, rejects: rejects}
}

// run keeps one connection until the context ends.
func (p *proxy) run(ctx context.Context, address string) {
	for ctx.Err() == nil {
		if err := p.converse(ctx, address); err != nil && ctx.Err() == nil {
			log.Printf("%s: %v", p.node.Id, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// converse answers everything that istiod sends, until the connection ends.
func (p *proxy) converse(ctx context.Context, address string) error {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return err
	}
	defer connection.Close()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(connection).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	for _, kind := range []string{clusterType, listenerType} {
		if err := stream.Send(&discovery.DiscoveryRequest{Node: p.node, TypeUrl: kind}); err != nil {
			return err
		}
	}
	accepted := map[string]string{}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := stream.Send(p.answer(response, accepted)); err != nil {
			return err
		}
	}
}

// answer is an acknowledgement, or a refusal that names the version that is still in use.
func (p *proxy) answer(response *discovery.DiscoveryResponse, accepted map[string]string) *discovery.DiscoveryRequest {
	request := &discovery.DiscoveryRequest{TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce}
	if p.rejects {
		request.ErrorDetail = &status.Status{Code: int32(codes.Internal), Message: "refused on purpose"}
	} else {
		accepted[response.TypeUrl] = response.VersionInfo
	}
	request.VersionInfo = accepted[response.TypeUrl]
	return request
}
