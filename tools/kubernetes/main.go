// One program that is etcd, the API server, the controllers or the scheduler of Kubernetes, by its first argument.
package main

import (
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"k8s.io/component-base/cli"
)

func main() {
	if len(os.Args) < 2 {
		os.Args = append(os.Args, "")
	}
	part := os.Args[1]
	os.Args = append([]string{part}, os.Args[2:]...)
	switch part {
	case "etcd":
		os.Exit(etcd(os.Args[1], os.Args[2], os.Args[3]))
	case "apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "controllers":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	}
	fmt.Fprintln(os.Stderr, "usage: kubernetes etcd FOLDER CLIENT_URL PEER_URL | apiserver … | controllers … | scheduler …")
	os.Exit(2)
}

// etcd runs one member in a folder, with its client and its peer address, until it fails.
func etcd(folder, client, peer string) int {
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
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, <-member.Err())
	return 1
}
