// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// writeFiles writes what the API server reads, and the file of who may do
// everything. The server makes its own certificate, in its first start.
func (s *Server) writeFiles() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	encoded = pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded})
	if err := os.WriteFile(s.path("accounts.key"), encoded, 0o600); err != nil {
		return err
	}
	token := rand.Text()
	if err := os.WriteFile(s.path("tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600); err != nil {
		return err
	}
	s.Kubeconfig, err = s.writeKubeconfig("kubeconfig", s.Address, token)
	return err
}

// KubeconfigVia writes the kubeconfig file of the same account by way of another
// address, such as a [Gate]'s, and returns its name.
func (s *Server) KubeconfigVia(address string) (string, error) {
	config, err := clientcmd.LoadFromFile(s.Kubeconfig)
	if err != nil {
		return "", err
	}
	return s.writeKubeconfig("kubeconfig-"+port(address), address, config.AuthInfos["admin"].Token)
}

func (s *Server) writeKubeconfig(name, address, token string) (string, error) {
	config := api.NewConfig()
	config.Clusters["test"] = &api.Cluster{
		Server: "https://" + address, CertificateAuthority: s.path("certificates/apiserver.crt"),
	}
	config.AuthInfos["admin"] = &api.AuthInfo{Token: token}
	config.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "admin"}
	config.CurrentContext = "test"
	return s.path(name), clientcmd.WriteToFile(*config, s.path(name))
}
