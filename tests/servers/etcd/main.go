// The etcd server of the contract tests, built from its own module so that no binary needs to be found anywhere.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
