//! JSON text as it travels: the bytes between the quotes of a JSON string, checked once and copied from then on.
//!
//! Not a parser (that is `scan`). A [`JsonText`] is valid UTF-8 without bare quotes, control characters or broken
//! escapes, so it may be put between two quotes without another look. Two texts may differ in bytes and still
//! stand for the same string: compare what [`JsonText::unescape`] gives.

use std::borrow::Cow;
use std::fmt;

/// The inside of a JSON string, escapes and all.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct JsonText<'a>(&'a [u8]);

impl<'a> JsonText<'a> {
    /// Takes bytes that are JSON text already: read by the scanner, made by [`escape`], or read back from the log, whose
    /// checksum vouches for what was written.
    pub(crate) fn checked(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The text with its escapes, to be copied between two quotes.
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether the string is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The string that the text stands for. Borrowed when there is nothing to unescape.
    ///
    /// A lone surrogate (`\ud800`) stands for no character and becomes U+FFFD.
    #[must_use]
    pub fn unescape(self) -> Cow<'a, str> {
        let Some(first) = memchr::memchr(b'\\', self.0) else { return String::from_utf8_lossy(self.0) };
        let mut plain = Vec::with_capacity(self.0.len());
        let (before, mut rest) = self.0.split_at(first);
        plain.extend_from_slice(before);
        while !rest.is_empty() {
            let (c, used) = first_escape(rest);
            plain.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[used..];
            let (before, after) = rest.split_at(memchr::memchr(b'\\', rest).unwrap_or(rest.len()));
            plain.extend_from_slice(before);
            rest = after;
        }
        // Lossy costs nothing here: the text was valid UTF-8, and only whole characters were put in.
        Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
    }

    /// Whether `word` is the string that the text stands for. Allocates nothing: names of fields are compared so.
    pub(crate) fn spells(self, word: &str) -> bool {
        let (mut rest, mut word) = (self.0, word.as_bytes());
        loop {
            let (plain, escaped) = rest.split_at(memchr::memchr(b'\\', rest).unwrap_or(rest.len()));
            let Some(behind) = word.strip_prefix(plain) else { return false };
            if escaped.is_empty() {
                return behind.is_empty();
            }
            let (c, used) = first_escape(escaped);
            let Some(behind) = behind.strip_prefix(c.encode_utf8(&mut [0; 4]).as_bytes()) else { return false };
            (rest, word) = (&escaped[used..], behind);
        }
    }

    /// Whether the string that the text stands for begins with `word`. Allocates nothing.
    pub(crate) fn begins_with(self, word: &str) -> bool {
        let (mut rest, mut word) = (self.0, word.as_bytes());
        loop {
            let (plain, escaped) = rest.split_at(memchr::memchr(b'\\', rest).unwrap_or(rest.len()));
            if plain.len() >= word.len() {
                return plain.starts_with(word);
            }
            let Some(behind) = word.strip_prefix(plain) else { return false };
            if escaped.is_empty() {
                return false;
            }
            let (c, used) = first_escape(escaped);
            let Some(behind) = behind.strip_prefix(c.encode_utf8(&mut [0; 4]).as_bytes()) else { return false };
            (rest, word) = (&escaped[used..], behind);
        }
    }

    /// The longest beginning of at most `bytes_max` bytes that ends behind a whole character.
    pub(crate) fn cut(self, bytes_max: usize) -> Self {
        let mut end = 0;
        while let Some(next) = self.0.get(end) {
            let width = match next {
                b'\\' => first_escape(&self.0[end..]).1,
                0..0x80 => 1,
                0x80..0xE0 => 2,
                0xE0..0xF0 => 3,
                0xF0.. => 4,
            };
            if end + width > bytes_max {
                break;
            }
            end += width;
        }
        Self(&self.0[..end.min(self.0.len())])
    }
}

impl<'a> JsonText<'a> {
    /// The characters of the string that the text stands for; a lone surrogate is U+FFFD. Allocates nothing.
    pub fn chars(self) -> impl Iterator<Item = char> + 'a {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (c, used) = first_char(rest)?;
            rest = &rest[used..];
            Some(c)
        })
    }
}

impl fmt::Debug for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", String::from_utf8_lossy(self.0))
    }
}

/// Appends `plain` as JSON text. Bytes that are not UTF-8 become U+FFFD.
pub fn escape(plain: &[u8], out: &mut Vec<u8>) {
    for chunk in plain.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\r' => out.extend_from_slice(b"\\r"),
                b'\t' => out.extend_from_slice(b"\\t"),
                0..0x20 => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                _ => out.push(byte),
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Appends `number` in decimal.
pub fn push_integer(number: i64, out: &mut Vec<u8>) {
    const PAIRS: &[u8; 200] = b"0001020304050607080910111213141516171819\
        2021222324252627282930313233343536373839\
        4041424344454647484950515253545556575859\
        6061626364656667686970717273747576777879\
        8081828384858687888990919293949596979899";
    // 19 digits and a sign: the length of i64::MIN.
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    let mut left = number.unsigned_abs();
    while left >= 10 {
        let pair = (left % 100) as usize * 2;
        start -= 2;
        digits[start..start + 2].copy_from_slice(&PAIRS[pair..pair + 2]);
        left /= 100;
    }
    // What is left is one digit, or nothing behind a last pair such as `42`.
    if left > 0 || start == digits.len() {
        start -= 1;
        digits[start] = b'0' + left as u8;
    }
    if number < 0 {
        start -= 1;
        digits[start] = b'-';
    }
    out.extend_from_slice(&digits[start..]);
}

/// The character at the beginning of `text`, escaped or not, and how many bytes spell it; `None` at the end.
fn first_char(text: &[u8]) -> Option<(char, usize)> {
    let width = match *text.first()? {
        b'\\' => return Some(first_escape(text)),
        ascii @ 0..0x80 => return Some((char::from(ascii), 1)),
        0x80..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
    };
    let c = text.get(..width).and_then(|bytes| std::str::from_utf8(bytes).ok()?.chars().next());
    Some(c.map_or((char::REPLACEMENT_CHARACTER, text.len()), |c| (c, width)))
}

/// The character that the escape at the beginning of `text` stands for, and how many bytes spell it.
fn first_escape(text: &[u8]) -> (char, usize) {
    let plain = match text.get(1) {
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'u') => return unicode_escape(text),
        Some(&other) => char::from(other),
        None => return (char::REPLACEMENT_CHARACTER, text.len()),
    };
    (plain, 2)
}

/// `\u0041`, or a pair of surrogates `\ud83d\ude00`.
fn unicode_escape(text: &[u8]) -> (char, usize) {
    let Some(unit) = hex_unit(text) else { return (char::REPLACEMENT_CHARACTER, text.len().min(6)) };
    if let (0xD800..0xDC00, Some(low @ 0xDC00..0xE000)) = (unit, text.get(6..).and_then(hex_unit)) {
        let code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

/// The four hex digits behind a leading `\u`.
fn hex_unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescaped(text: &str) -> String {
        JsonText::checked(text.as_bytes()).unescape().into_owned()
    }

    #[test]
    fn text_without_escapes_is_lent_not_copied() {
        assert!(matches!(JsonText::checked("naïve 🙂".as_bytes()).unescape(), Cow::Borrowed("naïve 🙂")));
    }

    #[test]
    fn a_lone_surrogate_reads_as_the_replacement_character() {
        assert_eq!(unescaped(r"a\ud800b"), "a\u{FFFD}b");
        assert_eq!(unescaped(r"\udc00\ud83d"), "\u{FFFD}\u{FFFD}");
        assert_eq!(unescaped(r"\ud83d\u0041"), "\u{FFFD}A");
        assert_eq!(unescaped(r"\ud83d\ude00"), "😀");
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced() {
        let mut out = Vec::new();
        escape(b"host\xff\"\x07", &mut out);
        assert_eq!(out, "host\u{FFFD}\\\"\\u0007".as_bytes());
    }

    #[test]
    fn a_cut_never_splits_a_character_or_an_escape() {
        let text = JsonText::checked("é\\ud83d\\ude00\\n".as_bytes());
        let lengths: Vec<usize> = (0..=17).map(|bytes_max| text.cut(bytes_max).as_bytes().len()).collect();
        assert_eq!(lengths, [0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 14, 14, 16, 16]);
    }

    #[test]
    fn integers_are_written_as_the_standard_library_writes_them() {
        for number in [0, 1, 9, 10, 99, 100, 101, 1_795_450_894_053, -1, -10, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            push_integer(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn what_is_escaped_unescapes_to_itself_and_is_what_serde_json_reads(plain: String) {
            let mut out = Vec::new();
            escape(plain.as_bytes(), &mut out);
            prop_assert_eq!(JsonText::checked(&out).unescape(), plain.as_str());
            let quoted = [b"\"", &out[..], b"\""].concat();
            prop_assert_eq!(serde_json::from_slice::<String>(&quoted).unwrap(), plain);
        }

        #[test]
        fn a_text_spells_what_it_unescapes_to_and_nothing_else(
            text in r"([a-c]|\\u006[1-3]|\\n|ü|\\ud83d){0,4}",
            word in "[a-cü\n\u{FFFD}]{0,4}",
        ) {
            let text = JsonText::checked(text.as_bytes());
            prop_assert!(text.spells(&text.unescape()));
            prop_assert_eq!(text.spells(&word), text.unescape() == word);
        }

        #[test]
        fn the_characters_of_a_text_are_those_that_it_unescapes_to(text in r"([a-c]|\\u006[1-3]|\\n|ü|🙂|\\ud83d){0,6}") {
            let text = JsonText::checked(text.as_bytes());
            prop_assert_eq!(text.chars().collect::<String>(), text.unescape());
        }

        #[test]
        fn any_integer_is_written_in_decimal(number: i64) {
            let mut out = Vec::new();
            push_integer(number, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
