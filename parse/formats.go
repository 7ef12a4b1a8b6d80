package parse

// Formats returns the formats that the engine reads. A new format is one file
// with its [Parser], one line here, and one folder of fixtures.
func Formats() []Format {
	return []Format{
		{"csv", []string{"text/csv", "text/tab-separated-values"}, []string{"csv", "tsv", "tab"}, csvParser{}},
		{"txt", []string{"text/plain"}, []string{"txt", "text", "log"}, txtParser{}},
	}
}
