// One program that is etcd, the API server, or the controllers that the chart needs, by its first argument.
//
// The controllers are Kubernetes' own. They are started here and not by kube-controller-manager, because that builds
// every controller there is, with all kinds of volumes: three times as much.
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/component-base/cli"
	"k8s.io/controller-manager/pkg/informerfactory"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
)

const workers = 2

func main() {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "etcd":
		fail(etcd(os.Args[2], os.Args[3], os.Args[4]))
	case len(os.Args) == 3 && os.Args[1] == "controllers":
		fail(controllers(os.Args[2]))
	case len(os.Args) > 1 && os.Args[1] == "apiserver":
		os.Args = os.Args[1:]
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	}
	fmt.Fprintln(os.Stderr, "usage: kubernetes etcd FOLDER CLIENT_URL PEER_URL | apiserver FLAGS | controllers KUBECONFIG")
	os.Exit(2)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// etcd runs one member in a folder, with its client and its peer address, until it fails.
func etcd(folder, client, peer string) error {
	config := embed.NewConfig()
	config.Dir = folder
	config.LogLevel = "error"
	config.UnsafeNoFsync = true // what a test wrote need not survive it
	clients, _ := url.Parse(client)
	peers, _ := url.Parse(peer)
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peers}, []url.URL{*peers}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	member, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	return <-member.Err()
}

// controllers runs those of Deployment, ReplicaSet, StatefulSet, Job, PodDisruptionBudget and ServiceAccount, and the
// garbage collector, for ever.
func controllers(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	ctx := context.Background()
	client := kubernetes.NewForConfigOrDie(config)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	shared := informers.NewSharedInformerFactory(client, 0)
	pods := shared.Core().V1().Pods()
	sets := shared.Apps().V1().ReplicaSets()
	deployments := shared.Apps().V1().Deployments()
	stateful := shared.Apps().V1().StatefulSets()

	deploying, err := deployment.NewDeploymentController(ctx, deployments, sets, pods, client)
	if err != nil {
		return err
	}
	go deploying.Run(ctx, workers)
	go replicaset.NewReplicaSetController(ctx, sets, pods, client, replicaset.BurstReplicas).Run(ctx, workers)
	claims, revisions := shared.Core().V1().PersistentVolumeClaims(), shared.Apps().V1().ControllerRevisions()
	go statefulset.NewStatefulSetController(ctx, pods, stateful, claims, revisions, client).Run(ctx, workers)
	jobs, err := job.NewController(ctx, pods, shared.Batch().V1().Jobs(), client)
	if err != nil {
		return err
	}
	go jobs.Run(ctx, workers)
	accounts, err := serviceaccount.NewServiceAccountsController(
		shared.Core().V1().ServiceAccounts(), shared.Core().V1().Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return err
	}
	go accounts.Run(ctx, workers)
	scales, err := scale.NewForConfig(config, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(client.Discovery()))
	if err != nil {
		return err
	}
	go disruption.NewDisruptionController(ctx, pods, shared.Policy().V1().PodDisruptionBudgets(),
		shared.Core().V1().ReplicationControllers(), sets, deployments, stateful,
		client, mapper, scales, client.Discovery()).Run(ctx)

	objects := metadata.NewForConfigOrDie(config)
	started := make(chan struct{})
	factory := informerfactory.NewInformerFactory(shared, metadatainformer.NewSharedInformerFactory(objects, 0))
	garbage, err := garbagecollector.NewGarbageCollector(
		ctx, client, objects, mapper, garbagecollector.DefaultIgnoredResources(), factory, started)
	if err != nil {
		return err
	}
	go garbage.Run(ctx, workers, 30*time.Second)
	go garbage.Sync(ctx, client.Discovery(), 5*time.Second)
	factory.Start(ctx.Done())
	close(started)
	select {}
}
