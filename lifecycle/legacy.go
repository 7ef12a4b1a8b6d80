package lifecycle

import "ragprocessor/rag"

// legacyStages are the texts that the incumbent wrote, or that its web
// application knows, beside ours.
var legacyStages = map[string]rag.Stage{
	"processing_document":   rag.Processing,
	"processing_video":      rag.Processing,
	"processing_audio":      rag.Processing,
	"processing_image":      rag.Processing,
	"cleaning_video":        rag.Processing,
	"analyzing":             rag.Processing,
	"analyzing_video":       rag.Processing,
	"analyzing_audio":       rag.Processing,
	"analyzing_image":       rag.Processing,
	"transcribing":          rag.Processing,
	"transcribing_audio":    rag.Processing,
	"extracting_text":       rag.Processing,
	"parsing":               rag.Processing,
	"splitting":             rag.Processing,
	"creating_video_chunks": rag.Processing,
	"generating_embeddings": rag.Embedding,
	"saving":                rag.Storing,
}

// ReadLegacy returns the stage of a row that the incumbent wrote, from its two
// columns. The status decides; the stage text only refines a status of
// "processing". An unknown status counts as pending, as the incumbent reads it.
func ReadLegacy(status, stage string) rag.Stage {
	switch rag.Status(status) {
	//fence:legacy-processed rag.StatusProcessed,
	//fence:legacy-partial , rag.StatusPartial
	case rag.StatusProcessed, rag.StatusPartial:
		return rag.Completed
	//fence:legacy-error
	case rag.StatusError:
		return rag.Failed
	//fence:legacy-cancelled
	case rag.StatusCancelled:
		return rag.Cancelled
	case rag.StatusProcessing:
		if s := rag.Stage(stage); Active(s) {
			return s
		}
		if s, ok := legacyStages[stage]; ok {
			return s
		}
		return rag.Processing // batches of a video, and whatever else
	}
	return rag.Pending
}
