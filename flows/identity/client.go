// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/podmeter/podmeter/internal/kubeapi"
	"github.com/podmeter/podmeter/internal/redirect"
	"github.com/podmeter/podmeter/internal/regular"
	"github.com/podmeter/podmeter/internal/secret"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// NewClient returns a client of the API server that the kubeconfig file names,
// or if that is empty of the cluster that this runs in. Outside a cluster the
// error is then [rest.ErrNotInCluster].
func NewClient(kubeconfig, userAgent string) (*kubeapi.API, error) {
	config, err := clientConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("configure Kubernetes client: %w", err)
	}
	config.UserAgent = userAgent
	// A third of JSON's size, and a fraction of its time to read.
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.Wrap(secret.Transport)
	config.Dial = patiently((&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	requests, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", secret.File(err))
	}
	requests.CheckRedirect = redirect.SameHost // the token goes with each hop
	client, err := kubeapi.New(config, requests, keptFields)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", secret.File(err))
	}
	return client, nil
}

func clientConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	content, err := regular.Read(kubeconfig, regular.ConfigLimit)
	if err != nil {
		return nil, err
	}
	if err := regular.NamedBy(content, filepath.Dir(kubeconfig)).Check(); err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	return config, secret.File(err)
}
