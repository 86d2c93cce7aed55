// Shows what naming/endpoints of a Go client writes and reads; go_endpoints.json holds what it showed. To show it again,
// in a folder with this file alone:
//
//	go mod init show && go get go.etcd.io/etcd/client/v3@v3.7.3 && go mod tidy
//	go run . record http://127.0.0.1:PORT /services/shop
//	go run . list http://127.0.0.1:PORT /services/ours
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
)

func main() {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[2]}})
	if err != nil {
		panic(err)
	}
	defer client.Close()
	ctx := context.Background()
	target := os.Args[3]
	manager, err := endpoints.NewManager(client, target)
	if err != nil {
		panic(err)
	}
	if os.Args[1] == "list" {
		found, err := manager.List(ctx)
		if err != nil {
			panic(err)
		}
		out, _ := json.Marshal(found)
		fmt.Println(string(out))
		return
	}
	written := []struct {
		Name     string
		Addr     string
		Metadata any
	}{
		{"nil", "10.0.0.1:80", nil},
		{"text", "10.0.0.1:80", "blue"},
		{"map", "10.0.0.1:80", map[string]string{"zone": "west", "a": "<b> & 'c' \"d\" \\ \n\t é \u2028 \U0001F600 \x7f"}},
		{"empty map", "10.0.0.1:80", map[string]string{}},
		{"mixed map", "10.0.0.1:80", map[string]any{"weight": 3, "canary": true, "none": nil, "list": []int{1, 2}, "in": map[string]string{"b": "1", "a": "2"}}},
		{"number", "10.0.0.1:80", 7},
		{"list", "10.0.0.1:80", []string{"a", "b"}},
		{"name", "shop.example:443", nil},
		{"ipv6", "[fd00::1]:443", nil},
		{"no port", "shop.example", nil},
		{"struct", "10.0.0.1:80", struct {
			Zone string `json:"zone"`
			Port int
		}{"west", 1}},
	}
	type record struct{ Name, Key, Value string }
	records := []record{}
	for _, each := range written {
		key := target + "/" + each.Name
		if err := manager.AddEndpoint(ctx, key, endpoints.Endpoint{Addr: each.Addr, Metadata: each.Metadata}); err != nil {
			panic(err)
		}
		got, err := client.Get(ctx, key)
		if err != nil {
			panic(err)
		}
		records = append(records, record{each.Name, key, string(got.Kvs[0].Value)})
	}
	if err := manager.DeleteEndpoint(ctx, target+"/nil"); err != nil {
		panic(err)
	}
	got, err := client.Get(ctx, target+"/nil")
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(os.Stderr, "keys left after DeleteEndpoint:", len(got.Kvs))
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	for _, each := range records {
		encoder.Encode(each)
	}
}
