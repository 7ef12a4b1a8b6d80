package parse

import (
	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
	"golang.org/x/text/encoding/unicode"
)

// Character sets of fonts that are not code pages.
const (
	rtfDefault = 1 // that of the document
	rtfSymbol  = 2 // a font of pictures
)

// rtfCharset returns the encoding of a font's character set, or nil if it is
// the document's.
func rtfCharset(charset int) encoding.Encoding {
	pages := map[int]int{77: 10000, 78: 932, 79: 949, 80: 936, 81: 950, 128: 932, 129: 949, 130: 949, 134: 936, 136: 950, 161: 1253, 162: 1254,
		163: 1258, 177: 1255, 178: 1256, 179: 1256, 181: 1255, 186: 1257, 204: 1251, 222: 874, 238: 1250, 254: 437, 255: 850}
	return rtfCodePage(pages[charset])
}

// rtfCodePage returns the encoding of a code page, or nil if it is not known.
func rtfCodePage(page int) encoding.Encoding {
	switch page {
	case 437:
		return charmap.CodePage437
	case 850:
		return charmap.CodePage850
	case 852:
		return charmap.CodePage852
	case 855:
		return charmap.CodePage855
	case 860:
		return charmap.CodePage860
	case 862:
		return charmap.CodePage862
	case 863:
		return charmap.CodePage863
	case 865:
		return charmap.CodePage865
	case 866:
		return charmap.CodePage866
	case 874:
		return charmap.Windows874
	case 932:
		return japanese.ShiftJIS
	case 936:
		return simplifiedchinese.GBK
	case 949, 1361:
		return korean.EUCKR
	case 950:
		return traditionalchinese.Big5
	case 1250:
		return charmap.Windows1250
	case 1251:
		return charmap.Windows1251
	case 1252:
		return charmap.Windows1252
	case 1253:
		return charmap.Windows1253
	case 1254:
		return charmap.Windows1254
	case 1255:
		return charmap.Windows1255
	case 1256:
		return charmap.Windows1256
	case 1257:
		return charmap.Windows1257
	case 1258:
		return charmap.Windows1258
	case 10000:
		return charmap.Macintosh
	case 10007:
		return charmap.MacintoshCyrillic
	case 20866:
		return charmap.KOI8R
	case 28592:
		return charmap.ISO8859_2
	case 54936:
		return simplifiedchinese.GB18030
	case 65001:
		return unicode.UTF8
	}
	return nil
}

// rtfLanguages are the languages of text, as Windows numbers them.
var rtfLanguages = map[int]string{
	1025: "ar", 1026: "bg", 1027: "ca", 1028: "zh-TW", 1029: "cs", 1030: "da", 1031: "de-DE", 1032: "el", 1033: "en-US", 1034: "es-ES",
	1035: "fi", 1036: "fr-FR", 1037: "he", 1038: "hu", 1040: "it-IT", 1041: "ja", 1042: "ko", 1043: "nl-NL", 1044: "nb", 1045: "pl",
	1046: "pt-BR", 1048: "ro", 1049: "ru", 1050: "hr", 1051: "sk", 1053: "sv", 1054: "th", 1055: "tr", 1057: "id", 1058: "uk",
	1060: "sl", 1061: "et", 1062: "lv", 1063: "lt", 1065: "fa", 1066: "vi", 1081: "hi", 2052: "zh-CN", 2055: "de-CH", 2057: "en-GB",
	2058: "es-MX", 2060: "fr-BE", 2064: "it-CH", 2067: "nl-BE", 2070: "pt-PT", 3076: "zh-HK", 3079: "de-AT", 3081: "en-AU", 3082: "es-ES",
	3084: "fr-CA", 4105: "en-CA", 4108: "fr-CH", 6153: "en-IE",
}
