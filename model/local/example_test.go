package local_test

import (
	"context"
	"fmt"
	"log"

	"ragprocessor/embed"
	"ragprocessor/model/local"
)

// A model is fetched once and opened in each process that needs it.
func Example() {
	ctx := context.Background()
	const dir = "models"
	err := local.Pull(ctx, local.PullOptions{
		Dir: dir,
		Progress: func(what string, done, size int64) {
			fmt.Printf("\r%s: %d of %d MB", what, done>>20, size>>20)
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	m, err := local.Open(ctx, local.Options{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	vectors, err := m.Embed(ctx, []embed.Input{
		{Text: "When are invoices due?", Query: true},
		{Text: "Invoices are due thirty days after they were sent."},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(vectors), "vectors in the space", m.Space())
}
