// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"github.com/podmeter/podmeter/internal/kubeapi"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// API returns what podmeter reads, by client-go's client of all kinds, which may be made for
// tests.
func API(client kubernetes.Interface) *kubeapi.API {
	core, apps := client.CoreV1(), client.AppsV1()
	api := &kubeapi.API{
		Pods: core.Pods(metav1.NamespaceAll), Services: core.Services(metav1.NamespaceAll), Nodes: core.Nodes(),
		Namespaces: core.Namespaces(),
		DaemonSets: func(namespace string) kubeapi.Getter[*appsv1.DaemonSet] { return apps.DaemonSets(namespace) },
		Client:     client,
	}
	if server, ok := core.RESTClient().(*rest.RESTClient); ok && server != nil {
		api.Core = server
	}
	return api
}
