package parse

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"ragprocessor/rag"
)

// A kind is a kind of file that the world knows and no [Format] reads.
type kind struct {
	mime string   // a type, or the beginning of one if it ends in "/"
	ext  []string // lower case; the first is the one that people know it by
	name string   // for people
	do   string   // what to do with one, for people
}

const (
	doModern    = "Save it in the new format of its program, or as PDF, and send that; or ask the operator to install LibreOffice, which the engine then uses"
	doSavePDF   = "Save it as PDF and send that"
	doSaveText  = "Save it as plain text or CSV and send that"
	doUnpack    = "Unpack it and send the files in it"
	doNothing   = "Send a document instead"
	doConverted = "Convert it to PDF, DOCX or plain text and send that"
)

// kinds returns the files that are known and not read by any format. What is
// also in [Formats] is never looked up here.
func kinds() []kind {
	return []kind{
		{mimeXlsb, []string{"xlsb"}, "Excel binary workbook", "Save it as XLSX and send that"},
		{"application/vnd.ms-excel", []string{"xls"}, "Excel 97–2003 workbook", doModern},
		{"application/msword", []string{"doc", "dot"}, "Word 97–2003 document", doModern},
		{"application/vnd.ms-powerpoint", []string{"ppt", "pps"}, "PowerPoint 97–2003 presentation", doModern},
		{"application/vnd.ms-publisher", []string{"pub"}, "Publisher document", doSavePDF},
		{"application/onenote", []string{"one"}, "OneNote section", doSavePDF},
		{"application/vnd.ms-visio.drawing.main+xml", []string{"vsdx"}, "Visio drawing", doSavePDF},
		{"application/x-ole-storage", nil, "Microsoft compound file", doSavePDF},
		{"application/vnd.oasis.opendocument.", nil, "OpenDocument file", doSavePDF},
		{"application/vnd.sun.xml.", nil, "StarOffice document", doSavePDF},
		{"application/x-mobipocket-ebook", []string{"mobi"}, "Mobipocket book", doConverted},
		{"application/x-ms-reader", []string{"lit"}, "Microsoft Reader book", doConverted},
		{"application/vnd.ms-htmlhelp", []string{"chm"}, "compiled HTML help", doConverted},
		{"image/vnd.djvu", []string{"djvu"}, "DjVu document", doSavePDF},
		{"application/postscript", []string{"ps", "eps"}, "PostScript document", doSavePDF},
		{"application/vnd.wordperfect", []string{"wpd", "wp"}, "WordPerfect document", doConverted},
		{"application/vnd.framemaker", []string{"fm"}, "FrameMaker document", doSavePDF},
		{"application/vnd.lotus-1-2-3", []string{"123"}, "Lotus 1-2-3 workbook", doSaveText},
		{"application/x-msaccess", []string{"mdb", "accdb"}, "Access database", doSaveText},
		{"application/vnd.sqlite3", []string{"sqlite", "db"}, "SQLite database", doSaveText},
		{"application/x-dbf", []string{"dbf"}, "dBASE table", doSaveText},
		{"application/vnd.apache.parquet", []string{"parquet"}, "Parquet table", doSaveText},

		{"image/png", []string{"png"}, "PNG picture", doNothing},
		{"image/jpeg", []string{"jpg", "jpeg"}, "JPEG picture", doNothing},
		{"image/gif", []string{"gif"}, "GIF picture", doNothing},
		{"image/webp", []string{"webp"}, "WebP picture", doNothing},
		{"image/svg+xml", []string{"svg"}, "SVG drawing", doNothing},
		{"image/heic", []string{"heic", "heif"}, "HEIC picture", "Save it as JPEG and send that"},
		{"image/tiff", []string{"tiff", "tif"}, "TIFF picture", doSavePDF},
		{"image/bmp", []string{"bmp"}, "bitmap picture", doNothing},
		{"image/vnd.adobe.photoshop", []string{"psd"}, "Photoshop picture", "Save it as JPEG and send that"},
		{"image/vnd.dwg", []string{"dwg"}, "AutoCAD drawing", doSavePDF},
		{"image/", nil, "picture", doNothing},
		{"audio/mpeg", []string{"mp3"}, "MP3 recording", doNothing},
		{"audio/wav", []string{"wav"}, "WAV recording", doNothing},
		{"audio/flac", []string{"flac"}, "FLAC recording", doNothing},
		{"audio/aac", []string{"aac"}, "AAC recording", doNothing},
		{"audio/ogg", []string{"ogg", "oga", "opus"}, "Ogg recording", doNothing},
		{"audio/x-m4a", []string{"m4a"}, "MPEG-4 recording", doNothing},
		{"audio/aiff", []string{"aiff", "aif"}, "AIFF recording", doNothing},
		{"audio/basic", []string{"au"}, "AU recording", doNothing},
		{"audio/x-ms-wma", []string{"wma"}, "Windows Media recording", doNothing},
		{"audio/", nil, "recording", doNothing},
		{"application/ogg", []string{"ogx"}, "Ogg recording", doNothing},
		{"video/mp4", []string{"mp4", "m4v"}, "MPEG-4 film", doNothing},
		{"video/quicktime", []string{"mov"}, "QuickTime film", doNothing},
		{"video/x-msvideo", []string{"avi"}, "AVI film", doNothing},
		{"video/matroska", []string{"mkv"}, "Matroska film", doNothing},
		{"video/webm", []string{"webm"}, "WebM film", doNothing},
		{"video/x-flv", []string{"flv"}, "Flash film", doNothing},
		{"video/x-ms-asf", []string{"wmv", "asf"}, "Windows Media file", doNothing},
		{"video/mpeg", []string{"mpg", "mpeg"}, "MPEG film", doNothing},
		{"video/3gpp", []string{"3gp"}, "3GPP film", doNothing},
		{"video/3gpp2", []string{"3g2"}, "3GPP2 film", doNothing},
		{"video/ogg", []string{"ogv"}, "Ogg film", doNothing},
		{"video/", nil, "film", doNothing},

		{"application/vnd.rar", []string{"rar"}, "RAR archive", doUnpack},
		{"application/vnd.ms-cab-compressed", []string{"cab"}, "Cabinet archive", doUnpack},
		{"application/java-archive", []string{"jar"}, "Java archive", doUnpack},
		{"application/vnd.android.package-archive", []string{"apk"}, "Android package", doNothing},
		{"application/vnd.microsoft.portable-executable", []string{"exe", "dll"}, "Windows program", doNothing},
		{"application/x-elf", nil, "Linux program", doNothing},
		{"application/x-executable", nil, "Linux program", doNothing},
		{"application/x-sharedlib", []string{"so"}, "Linux library", doNothing},
		{"application/x-mach-binary", nil, "macOS program", doNothing},
		{"application/x-java-applet", []string{"class"}, "Java class", doNothing},
		{"application/wasm", []string{"wasm"}, "WebAssembly module", doNothing},
		{"application/x-shockwave-flash", []string{"swf"}, "Flash animation", doNothing},
		{"font/", []string{"ttf", "otf", "woff", "woff2"}, "font", doNothing},
	}
}

// mimeOf returns the type that an extension, lower case and without its dot,
// stands for: "text/plain" if there is none, "application/octet-stream" if
// nobody knows it.
func mimeOf(ext string) string {
	if ext == "" {
		return "text/plain"
	}
	for _, f := range Formats() {
		if slices.Contains(f.Extensions, ext) {
			return f.MIME[0]
		}
	}
	for _, k := range kinds() {
		if slices.Contains(k.ext, ext) && !strings.HasSuffix(k.mime, "/") {
			return k.mime
		}
	}
	return mimeUnknown
}

// unsupported returns the error for a file that no format reads.
func unsupported(mime, name string) error {
	if mime == mimeEncrypted {
		return rag.BadFile("password_required",
			"The file is encrypted and can only be opened with its password",
			"Open it in Office, remove the password, save it and send it again", nil)
	}
	what, do := "", ""
	for _, k := range kinds() {
		if k.mime == mime || strings.HasSuffix(k.mime, "/") && strings.HasPrefix(mime, k.mime) ||
			strings.HasSuffix(k.mime, ".") && strings.HasPrefix(mime, k.mime) {
			what, do = k.name, k.do
			if len(k.ext) > 0 {
				what += " (" + k.ext[0] + ")"
			}
			break
		}
	}
	if what == "" {
		what, do = mime, doConverted
		if mime == mimeUnknown {
			what = "data of an unknown kind"
			if ext := path.Ext(name); len(ext) > 1 && len(ext) < 10 {
				what = fmt.Sprintf("%s, named %s", what, ext)
			}
		}
	}
	var read []string
	for _, f := range Formats() {
		read = append(read, f.Name)
	}
	return rag.BadFile("unsupported_format", "Unsupported file type: "+what,
		fmt.Sprintf("%s; documents that can be read: %s", do, strings.Join(read, ", ")), nil)
}

// CategoryOf returns the category of a file by its MIME type, which may be
// empty or unknown, and then by the extension of its name.
func CategoryOf(mime, name string) rag.Category {
	ext := strings.ToLower(strings.TrimPrefix(path.Ext(name), "."))
	byExt := mimeOf(ext)
	switch {
	case mime == "" || mime == mimeUnknown:
		mime = byExt
	case mime == "video/x-ms-asf" && strings.HasPrefix(byExt, "audio/"),
		mime == "application/ogg" && strings.HasPrefix(byExt, "video/"):
		mime = byExt // a container, of which only the name says what is in it
	case mime == "application/ogg":
		return rag.Audio
	case mime == "image/vnd.djvu":
		return rag.Documents
	}
	top, _, _ := strings.Cut(mime, "/")
	switch top {
	case "image":
		return rag.Images
	case "audio":
		return rag.Audio
	case "video":
		return rag.Videos
	}
	return rag.Documents
}
