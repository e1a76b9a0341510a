//! Reads JSON: checks every byte by RFC 8259 and lends slices of the text. Allocates nothing, recurses never.
//!
//! Not a model of JSON: it builds no values and knows no impression; the caller says what it expects next. What is
//! behind the scanner's position has been checked whole, strings and numbers included, whether the caller wanted
//! them or not. Every error names the byte at which the text stops being JSON.
//!
//! One choice the RFC leaves open: an escaped surrogate without its partner (`"\ud800"`) is valid by the grammar
//! although it stands for no character. It is taken, because refusing it would lose a whole post for one odd key.
//! A name that comes twice in one object is the caller's affair.

use super::text::JsonText;

/// How many arrays and objects may be open at once. What SDKs send has 5; the parser's own memory is a bit for each.
pub const DEPTH_MAX: u32 = 128;

/// A post that cannot be read at all. Nothing of it was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read from byte {at} on: {why}")]
pub struct Unreadable {
    /// Bytes of the body, counted from 0, before the place.
    pub at: usize,
    /// What is wrong there.
    pub why: UnreadableWhy,
}

/// Why a post cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableWhy {
    /// The text stops in the middle of a value; an empty body too.
    #[error("the body ends too early")]
    Truncated,
    /// RFC 8259 asks for UTF-8.
    #[error("not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("not JSON, expected {expected}")]
    NotJson {
        /// What could have stood there.
        expected: &'static str,
    },
    /// More than [`DEPTH_MAX`] arrays and objects inside each other.
    #[error("nested more than {limit} levels deep")]
    TooDeep {
        /// The most that is taken.
        limit: u32,
    },
    /// JSON, but not the outermost structure of this kind of post.
    #[error("expected {expected}")]
    WrongShape {
        /// What the body should have been.
        expected: &'static str,
    },
}

/// What sort of value stands at the scanner's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub(crate) struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Stands before the first byte of `body`, all of which is checked to be UTF-8 here.
    pub(crate) fn new(body: &'a [u8]) -> Result<Self, Unreadable> {
        match std::str::from_utf8(body) {
            Ok(_) => Ok(Self { body, at: 0 }),
            Err(error) => {
                let why = if error.error_len().is_some() { UnreadableWhy::NotUtf8 } else { UnreadableWhy::Truncated };
                Err(Unreadable { at: error.valid_up_to(), why })
            }
        }
    }

    /// Bytes before the position.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The same text from `at` on, a place where this scanner found a value.
    pub(crate) fn from(&self, at: usize) -> Self {
        Self { body: self.body, at }
    }

    /// The text from `start` to the position.
    pub(crate) fn text_since(&self, start: usize) -> &'a [u8] {
        &self.body[start..self.at]
    }

    /// Moves to the next value and says what it is. The value itself is still ahead.
    #[inline(always)]
    pub(crate) fn kind(&mut self) -> Result<Kind, Unreadable> {
        match self.next_byte() {
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'n') => Ok(Kind::Null),
            Some(b't') => Ok(Kind::True),
            Some(b'f') => Ok(Kind::False),
            _ => Err(self.not_json("a value")),
        }
    }

    /// Enters the array or object at the position. Returns whether it has anything in it; if not, it is left at once.
    #[inline(always)]
    pub(crate) fn open(&mut self, close: u8) -> Result<bool, Unreadable> {
        self.at += 1;
        let empty = self.next_byte() == Some(close);
        if empty {
            self.at += 1;
        }
        Ok(!empty)
    }

    /// Goes on behind a value in an array or object. Returns whether another follows; if not, it has been left.
    #[inline(always)]
    pub(crate) fn more(&mut self, close: u8) -> Result<bool, Unreadable> {
        match self.next_byte() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.not_json(if close == b']' { "',' or ']'" } else { "',' or '}'" })),
        }
    }

    /// Reads a member's name and the colon behind it.
    #[inline(always)]
    pub(crate) fn name(&mut self) -> Result<JsonText<'a>, Unreadable> {
        if self.next_byte() != Some(b'"') {
            return Err(self.not_json("a name in quotes"));
        }
        let name = self.string()?;
        if self.next_byte() != Some(b':') {
            return Err(self.not_json("':'"));
        }
        self.at += 1;
        Ok(name)
    }

    /// Reads the string whose opening quote is at the position.
    #[inline(always)]
    pub(crate) fn string(&mut self) -> Result<JsonText<'a>, Unreadable> {
        let start = self.at + 1;
        self.at = start;
        loop {
            self.at = first_special(self.body, self.at);
            match self.body.get(self.at) {
                Some(b'"') => {
                    let text = &self.body[start..self.at];
                    self.at += 1;
                    return Ok(JsonText::checked(text));
                }
                Some(b'\\') => self.escape()?,
                _ => return Err(self.not_json("no bare control character in a string")),
            }
        }
    }

    /// Reads the number at the position. `None`: a number, but with fraction or exponent or outside 64 bits.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Result<Option<i64>, Unreadable> {
        let start = self.at;
        let negative = self.body.get(start) == Some(&b'-');
        self.at += usize::from(negative);
        let first_digit = self.at;
        let mut magnitude = 0_u64;
        if let Some(eight) = self.body.get(self.at..).and_then(<[u8]>::first_chunk::<8>).and_then(eight_digits) {
            magnitude = eight;
            self.at += 8;
        }
        while let Some(digit @ b'0'..=b'9') = self.body.get(self.at) {
            magnitude = magnitude.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        let digits = self.at - first_digit;
        if digits == 0 {
            return Err(self.not_json("a digit"));
        }
        if digits > 1 && self.body[first_digit] == b'0' {
            self.at = first_digit + 1;
            return Err(self.not_json("no digit behind a leading zero"));
        }
        if matches!(self.body.get(self.at), Some(b'.' | b'e' | b'E')) {
            self.fraction_and_exponent()?;
            return Ok(None);
        }
        if digits > 18 {
            // 19 digits may or may not fit, and more may have wrapped.
            let text = std::str::from_utf8(self.text_since(start)).expect("digits are ASCII");
            return Ok(text.parse().ok());
        }
        let magnitude = i64::try_from(magnitude).expect("18 digits fit in 63 bits");
        Ok(Some(if negative { -magnitude } else { magnitude }))
    }

    /// Reads `true`, `false` or `null`, whose first letter is at the position.
    #[inline]
    pub(crate) fn literal(&mut self, word: &'static str) -> Result<(), Unreadable> {
        for &letter in word.as_bytes() {
            if self.body.get(self.at) != Some(&letter) {
                return Err(self.not_json(word));
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Reads past the next value, whatever it is. `depth`: how many arrays and objects are open around it.
    pub(crate) fn skip(&mut self, depth: u32) -> Result<(), Unreadable> {
        // One bit for every open array (0) or object (1), the innermost lowest: DEPTH_MAX bits are enough.
        let mut open_kinds = 0_u128;
        let mut open = 0_u32;
        loop {
            let kind = self.kind()?;
            match kind {
                Kind::Object | Kind::Array => {
                    if depth + open >= DEPTH_MAX {
                        return Err(Unreadable { at: self.at, why: UnreadableWhy::TooDeep { limit: DEPTH_MAX } });
                    }
                    let is_object = kind == Kind::Object;
                    if self.open(if is_object { b'}' } else { b']' })? {
                        open_kinds = open_kinds << 1 | u128::from(is_object);
                        open += 1;
                        if is_object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                Kind::String => _ = self.string()?,
                Kind::Number => _ = self.number()?,
                Kind::True => self.literal("true")?,
                Kind::False => self.literal("false")?,
                Kind::Null => self.literal("null")?,
            }
            // A value has ended: leave what ends with it, up to where another value is due.
            loop {
                if open == 0 {
                    return Ok(());
                }
                let is_object = open_kinds & 1 == 1;
                if self.more(if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.name()?;
                    }
                    break;
                }
                open_kinds >>= 1;
                open -= 1;
            }
        }
    }

    /// Checks that nothing but white space follows.
    pub(crate) fn end(&mut self) -> Result<(), Unreadable> {
        match self.next_byte() {
            None => Ok(()),
            Some(_) => Err(self.not_json("nothing behind the end")),
        }
    }

    /// Moves over white space. Returns the byte behind it, which is still ahead.
    #[inline(always)]
    fn next_byte(&mut self) -> Option<u8> {
        loop {
            match self.body.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    /// Reads the escape whose backslash is at the position.
    fn escape(&mut self) -> Result<(), Unreadable> {
        self.at += 1;
        match self.body.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.body.get(self.at).is_some_and(u8::is_ascii_hexdigit) {
                        return Err(self.not_json("a hexadecimal digit"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.not_json("one of \"\\/bfnrtu behind a backslash")),
        }
        Ok(())
    }

    /// Reads `.5`, `e10` or `.5e-10` behind the digits of a number.
    fn fraction_and_exponent(&mut self) -> Result<(), Unreadable> {
        if self.body.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.body.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.body.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Reads one digit or more.
    fn digits(&mut self) -> Result<(), Unreadable> {
        let start = self.at;
        while self.body.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.not_json("a digit")) } else { Ok(()) }
    }

    /// The error at the position: something else was expected, or the text ended.
    #[cold]
    fn not_json(&self, expected: &'static str) -> Unreadable {
        let ended = self.at >= self.body.len();
        let why = if ended { UnreadableWhy::Truncated } else { UnreadableWhy::NotJson { expected } };
        Unreadable { at: self.at, why }
    }
}

/// The first quote, backslash or control character at or behind `at`, else the end. Eight bytes a step.
#[inline(always)]
fn first_special(text: &[u8], mut at: usize) -> usize {
    while let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let marks = special_marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return at + (marks.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&byte| byte != b'"' && byte != b'\\' && byte >= 0x20) {
        at += 1;
    }
    at
}

/// The value of eight digits, if all are: times and change numbers have 13.
#[inline]
fn eight_digits(digits: &[u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(*digits);
    // Digits are 0x30..=0x39: the high half is 3, and still is when 6 is added.
    let high_halves = 0xF0F0_F0F0_F0F0_F0F0;
    let zeros = 0x3030_3030_3030_3030;
    if word & high_halves != zeros || word.wrapping_add(0x0606_0606_0606_0606) & high_halves != zeros {
        return None;
    }
    // Neighbours are joined: digits to pairs, pairs to fours, fours to all eight. The first digit is the lowest byte.
    let digits = word - zeros;
    let pairs = (digits * 10 + (digits >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours * 10_000 + (fours >> 32)) & 0xFFFF_FFFF)
}

/// Sets the top bit of every byte of `word` that ends plain text; the lowest mark is exact, those above it may be
/// false (a borrow runs upwards), so only the lowest counts.
#[inline]
fn special_marks(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // A byte below n borrows when n is taken from it, which sets its top bit; one that had it set before does not count.
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word & TOPS;
    let quote = below(word ^ (ONES * b'"' as u64), 1);
    let backslash = below(word ^ (ONES * b'\\' as u64), 1);
    quote | backslash | below(word, 0x20)
}

#[cfg(test)]
mod tests;
