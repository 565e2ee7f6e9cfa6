// SPDX-License-Identifier: Apache-2.0

// Package kubeapi asks an API server for the few kinds of objects that podmeter reads.
// client-go's client of all kinds is a third of a binary, and most of what is resident of it.
package kubeapi

import (
	"context"
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
)

// API is what podmeter reads. It is safe for concurrent use.
type API struct {
	// Pods and Services are those of all namespaces.
	Pods       Lister[*corev1.PodList]
	Services   Lister[*corev1.ServiceList]
	Nodes      Lister[*corev1.NodeList]
	Namespaces Getter[*corev1.Namespace]
	DaemonSets func(namespace string) Getter[*appsv1.DaemonSet]
	// Core is what the objects of core/v1 are asked with; nil where tests have no server.
	Core rest.Interface
	// Client is what client-go asks whether lists can come as a stream.
	Client any
}

// Lister lists and watches objects, L being the type of their lists.
type Lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// Getter reads objects by their names.
type Getter[O runtime.Object] interface {
	Get(context.Context, string, metav1.GetOptions) (O, error)
}

// scheme are the kinds that are known.
var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	utilruntime.Must(corev1.AddToScheme(s))
	utilruntime.Must(appsv1.AddToScheme(s))
	return s
}()

// Parameters encodes the options of requests.
var Parameters = runtime.NewParameterCodec(scheme)

// New returns the API of the server that a configuration is of, asked with a client of HTTP.
// What is watched has no more than what is kept of its kind.
func New(config *rest.Config, client *http.Client, kept Kept) (*API, error) {
	core, err := restClient(config, client, "/api", corev1.SchemeGroupVersion, kept)
	if err != nil {
		return nil, err
	}
	apps, err := restClient(config, client, "/apis", appsv1.SchemeGroupVersion, nil)
	if err != nil {
		return nil, err
	}
	return &API{
		Pods:     lister(core, "pods", func() *corev1.Pod { return new(corev1.Pod) }, func() *corev1.PodList { return new(corev1.PodList) }),
		Services: lister(core, "services", func() *corev1.Service { return new(corev1.Service) }, func() *corev1.ServiceList { return new(corev1.ServiceList) }),
		Nodes:    lister(core, "nodes", func() *corev1.Node { return new(corev1.Node) }, func() *corev1.NodeList { return new(corev1.NodeList) }),
		Namespaces: gentype.NewClient("namespaces", core, Parameters, metav1.NamespaceNone,
			func() *corev1.Namespace { return new(corev1.Namespace) }),
		DaemonSets: func(namespace string) Getter[*appsv1.DaemonSet] {
			return gentype.NewClient("daemonsets", apps, Parameters, namespace, func() *appsv1.DaemonSet { return new(appsv1.DaemonSet) })
		},
		Core: core, Client: core,
	}, nil
}

// object is an API object.
type object interface {
	runtime.Object
	metav1.Object
}

func lister[O object, L runtime.Object](api rest.Interface, resource string, one func() O, list func() L) Lister[L] {
	return gentype.NewClientWithList(resource, api, Parameters, metav1.NamespaceAll, one, list)
}

func restClient(config *rest.Config, client *http.Client, path string, version schema.GroupVersion, kept Kept) (rest.Interface, error) {
	c := rest.CopyConfig(config)
	c.GroupVersion, c.APIPath = &version, path
	c.NegotiatedSerializer = withKept(rest.CodecFactoryForGeneratedClient(scheme, serializer.NewCodecFactory(scheme)).WithoutConversion(), kept)
	return rest.RESTClientForConfigAndClient(c, client)
}
