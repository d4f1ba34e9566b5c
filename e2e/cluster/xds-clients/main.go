// Command xds-clients connects to real istiods as the proxies of simulated pods would.
//
//	xds-clients --kubeconfig FILE --istiod REVISION=HOST:PORT... [--reject NAMESPACE/WORKLOAD@REVISION...]
//
// For each pod whose container istio-proxy runs it keeps one connection to the istiod of the pod's revision, takes clusters
// and listeners, and acknowledges them; for the workloads of --reject it refuses them, as an Envoy does with configuration
// that it does not understand. Nothing is done with what istiod sends. Lost connections are made again.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os/signal"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// options are what the command line says.
type options struct {
	kubeconfig string
	// istiods are the plaintext addresses by revision.
	istiods map[string]string
	// rejecting holds NAMESPACE/WORKLOAD@REVISION.
	rejecting map[string]bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := follow(ctx, parse()); err != nil {
		log.Fatal(err)
	}
}

func parse() options {
	parsed := options{istiods: map[string]string{}, rejecting: map[string]bool{}}
	flag.StringVar(&parsed.kubeconfig, "kubeconfig", "", "who lists pods, and where")
	flag.Func("istiod", "REVISION=HOST:PORT of a plaintext xDS port; repeatable", func(value string) error {
		revision, address, found := strings.Cut(value, "=")
		if !found {
			return fmt.Errorf("%q is not REVISION=HOST:PORT", value)
		}
		parsed.istiods[revision] = address
		return nil
	})
	flag.Func("reject", "NAMESPACE/WORKLOAD@REVISION whose proxies refuse everything; repeatable", func(value string) error {
		if !strings.Contains(value, "/") || !strings.Contains(value, "@") {
			return fmt.Errorf("%q is not NAMESPACE/WORKLOAD@REVISION", value)
		}
		parsed.rejecting[value] = true
		return nil
	})
	flag.Parse()
	return parsed
}

// follow keeps the connections in step with the pods until the context ends.
func follow(ctx context.Context, options options) error {
	config, err := clientcmd.BuildConfigFromFlags("", options.kubeconfig)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	fleet := newFleet(ctx, options)
	factory := informers.NewSharedInformerFactory(clients, 0)
	informer := factory.Core().V1().Pods().Informer()
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { fleet.see(object.(*corev1.Pod)) },
		UpdateFunc: func(_, object any) { fleet.see(object.(*corev1.Pod)) },
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			fleet.forget(object.(*corev1.Pod))
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	<-ctx.Done()
	return nil
}
