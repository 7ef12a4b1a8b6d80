package parse

// Formats returns the formats that the engine reads. A new format is one file
// with its [Parser], one line here, and one folder of fixtures.
func Formats() []Format {
	return []Format{
		{"pdf", []string{"application/pdf"}, []string{"pdf"}, pdfParser{}},
		{"docx", []string{"application/vnd.openxmlformats-officedocument.wordprocessingml.document"}, []string{"docx", "docm", "dotx", "dotm"}, docxParser{}},
		{"pptx", []string{"application/vnd.openxmlformats-officedocument.presentationml.presentation"}, []string{"pptx", "pptm", "ppsx", "potx"}, pptxParser{}},
		{"xlsx", []string{"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}, []string{"xlsx", "xlsm", "xltx", "xltm"}, xlsxParser{}},
		{"ods", []string{"application/vnd.oasis.opendocument.spreadsheet", "application/vnd.oasis.opendocument.spreadsheet-template"}, []string{"ods", "ots"}, odsParser{}},
		{"epub", []string{"application/epub+zip"}, []string{"epub"}, epubParser{}},
		{"fb2", []string{mimeFB2}, []string{"fb2"}, fb2Parser{}},
		{"ipynb", []string{mimeIpynb}, []string{"ipynb"}, ipynbParser{}},
		{"json", []string{mimeJSON, "application/geo+json", "model/gltf+json", "application/vnd.cyclonedx+json"}, []string{"json", "geojson", "har", "webmanifest"}, jsonParser{}},
		{"jsonl", []string{mimeJSONL}, []string{"jsonl", "ndjson"}, jsonParser{lines: true}},
		{"yaml", []string{"application/yaml"}, []string{"yaml", "yml"}, yamlParser{}},
		{"toml", []string{"application/toml"}, []string{"toml"}, tomlParser{}},
		{"odt", []string{"application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.text-template", "application/vnd.oasis.opendocument.text-master",
			"application/vnd.oasis.opendocument.text-web", "application/vnd.oasis.opendocument.text" + odfFlat}, []string{"odt", "ott", "odm", "fodt"}, odtParser{}},
		{"odp", []string{"application/vnd.oasis.opendocument.presentation", "application/vnd.oasis.opendocument.presentation-template",
			"application/vnd.oasis.opendocument.presentation" + odfFlat}, []string{"odp", "otp", "fodp"}, odpParser{}},
		{"rtf", []string{"text/rtf"}, []string{"rtf"}, rtfParser{}},
		{"xml", xmlTypes, xmlExtensions, xmlParser{}},
		{"vtt", []string{"text/vtt"}, []string{"vtt"}, cueParser{"vtt"}},
		{"srt", []string{"application/x-subrip"}, []string{"srt"}, cueParser{"srt"}},
		{"html", []string{"text/html", "application/xhtml+xml"}, []string{"html", "htm", "xhtml"}, htmlParser{}},
		{"md", []string{"text/markdown"}, []string{"md", "markdown", "mdown", "mkd"}, mdParser{}},
		{"csv", []string{"text/csv"}, []string{"csv"}, csvParser{"csv"}},
		{"tsv", []string{"text/tab-separated-values"}, []string{"tsv", "tab"}, csvParser{"tsv"}},
		{"zip", []string{"application/zip"}, []string{"zip"}, archiveParser{zipMembers}},
		{"tar", []string{"application/x-tar"}, []string{"tar"}, archiveParser{tarMembers}},
		{"gz", []string{"application/gzip"}, []string{"gz", "tgz"}, archiveParser{packedMembers(openGzip)}},
		{"bz2", []string{"application/x-bzip2"}, []string{"bz2", "tbz2"}, archiveParser{packedMembers(openBzip2)}},
		{"xz", []string{"application/x-xz"}, []string{"xz", "txz"}, archiveParser{packedMembers(openXz)}},
		{"zst", []string{"application/zstd"}, []string{"zst"}, archiveParser{packedMembers(openZstd)}},
		{"7z", []string{"application/x-7z-compressed"}, []string{"7z"}, archiveParser{sevenZipMembers}},
		{"eml", []string{"message/rfc822"}, []string{"eml", "emlx", "mht", "mhtml"}, emlParser{}},
		{"msg", []string{"application/vnd.ms-outlook"}, []string{"msg", "oft"}, msgParser{}},
		{"mbox", []string{"application/mbox"}, []string{"mbox", "mbx"}, mboxParser{}},
		{"txt", txtTypes, txtExtensions, txtParser{}},
	}
}
