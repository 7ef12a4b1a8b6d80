package source

import (
	"context"
	"errors"

	"ragprocessor/rag"
)

// A Mux is the source of all objects: it passes each on to the source of its
// bucket, whose key is scheme://bucket, or else to that of its scheme, whose
// key is the scheme alone.
//
//	source.Mux{
//		"file://files":   &source.Files{Roots: roots},
//		"file://uploads": &source.Uploads{Dir: dir},
//		"gs":             bucketStore,
//	}
type Mux map[string]Source

// Open opens object with the source that is its own; see [Source].
func (m Mux) Open(ctx context.Context, object rag.Object, generation int64) (*Blob, error) {
	s, ok := m[object.Scheme+"://"+object.Bucket]
	if !ok {
		s, ok = m[object.Scheme]
	}
	if !ok {
		return nil, &rag.Error{
			Code: "unknown_source", Fault: rag.FaultSystem, Permanent: true,
			Reason: "The engine is not set up to read from " + object.Scheme + "://" + object.Bucket,
			Action: "Set up this source in the engine's configuration, then retry",
			Err:    errors.New(object.URI()),
		}
	}
	return s.Open(ctx, object, generation)
}
