//! Patterns over bytes: `glob(3)` within a component, and the wider wildcards of negative rules.

/// A step of a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Token {
    /// This byte.
    Byte(u8),
    /// `*`: any run of bytes, in a positive rule of its component.
    Any,
    /// `?`: any byte but a slash.
    One,
    /// `[...]`: one of these bytes. Positive rules only.
    Set(Box<Set>),
}

impl Token {
    /// As the official tool writes it for `glob(3)`.
    fn escaped(&self) -> Vec<u8> {
        match self {
            Self::Any => vec![b'*'],
            Self::One => vec![b'?'],
            Self::Byte(byte @ (b'*' | b'?')) => vec![b'\\', *byte],
            Self::Byte(byte) => vec![*byte],
            Self::Set(_) => Vec::new(),
        }
    }
}

/// Takes one element of a rule apart. None where a backslash stands before anything but `*`, `?`
/// and a backslash, and where nothing is left.
pub(super) fn tokens(element: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::with_capacity(element.len());
    let mut bytes = element.iter();
    while let Some(byte) = bytes.next() {
        tokens.push(match byte {
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' => match bytes.next() {
                Some(escaped @ (b'*' | b'?' | b'\\')) => Token::Byte(*escaped),
                Some(_) => return None,
                // the official parser drops a backslash that nothing follows
                None => break,
            },
            byte => Token::Byte(*byte),
        });
    }
    (!tokens.is_empty()).then_some(tokens)
}

/// The elements as one pattern with slashes between.
pub(super) fn join(elements: &[Vec<Token>], absolute: bool) -> Vec<Token> {
    let mut whole = elements.join(&Token::Byte(b'/'));
    if absolute {
        whole.insert(0, Token::Byte(b'/'));
    }
    whole
}

/// What `glob(3)` makes of an element. The official tool escapes `*` and `?` for it again, but not
/// backslashes and brackets, which therefore mean there what they always do.
pub(super) fn glob(element: &[Token]) -> Vec<Token> {
    let text: Vec<u8> = element.iter().flat_map(Token::escaped).collect();
    let mut rest = text.as_slice();
    let mut pattern = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        pattern.push(match byte {
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' => match rest.split_first() {
                Some((escaped, after)) => {
                    rest = after;
                    Token::Byte(*escaped)
                }
                // nothing matches
                None => Token::Set(Box::default()),
            },
            b'[' => match Set::parse(rest) {
                Some((set, after)) => {
                    rest = after;
                    Token::Set(Box::new(set))
                }
                None => Token::Byte(b'['),
            },
            byte => Token::Byte(*byte),
        });
    }
    pattern
}

/// Matches the whole text. When a step fails, the last star takes one byte more: with stars that
/// match anything, going further back cannot help. Time is at most the product of the lengths.
pub(super) fn matches(pattern: &[Token], text: &[u8]) -> bool {
    let (mut at, mut i) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while i < text.len() {
        let fits = match pattern.get(at) {
            Some(Token::Any) => {
                at += 1;
                star = Some((at, i));
                continue;
            }
            Some(Token::One) => text[i] != b'/',
            Some(Token::Byte(byte)) => text[i] == *byte,
            Some(Token::Set(set)) => set.has(text[i]),
            None => false,
        };
        if fits {
            at += 1;
            i += 1;
        } else if let Some((after_star, taken_to)) = star {
            at = after_star;
            i = taken_to + 1;
            star = Some((after_star, i));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|token| *token == Token::Any)
}

/// A set of bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Set([u128; 2]);

impl Set {
    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 7)] >> (byte & 127) & 1 == 1
    }

    fn add(&mut self, byte: u8) {
        self.0[usize::from(byte >> 7)] |= 1 << (byte & 127);
    }

    /// Reads a bracket expression behind its `[`. None if it is never closed, and so is none.
    fn parse(text: &[u8]) -> Option<(Self, &[u8])> {
        // most often, and cheaply, told: nothing closes it
        text.iter().find(|byte| **byte == b']')?;
        let mut set = Self::default();
        let inverted = matches!(text.first(), Some(b'!' | b'^'));
        let begin = &text[usize::from(inverted)..];
        let mut rest = begin;
        loop {
            let (first, after) = rest.split_first()?;
            if *first == b']' && rest.len() < begin.len() {
                if inverted {
                    set.0 = set.0.map(|half| !half);
                }
                return Some((set, after));
            }
            if *first == b'['
                && let Some((class, after)) = class(rest)
            {
                (0..=u8::MAX).filter(class).for_each(|b| set.add(b));
                rest = after;
                continue;
            }
            let (low, after) = one(rest)?;
            rest = after;
            if let [b'-', more @ ..] = rest
                && more.first().is_some_and(|byte| *byte != b']')
            {
                let (high, after) = one(more)?;
                rest = after;
                (low..=high).for_each(|b| set.add(b));
            } else {
                set.add(low);
            }
        }
    }
}

/// A byte inside brackets, perhaps behind a backslash, and what comes after it.
fn one(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'\\', byte, rest @ ..] => Some((*byte, rest)),
        [b'\\'] | [] => None,
        [byte, rest @ ..] => Some((*byte, rest)),
    }
}

type Class = fn(&u8) -> bool;

/// `[:alpha:]` and the like, and what comes after it.
fn class(text: &[u8]) -> Option<(Class, &[u8])> {
    const CLASSES: [(&[u8], Class); 12] = [
        (b"[:alnum:]", u8::is_ascii_alphanumeric),
        (b"[:alpha:]", u8::is_ascii_alphabetic),
        (b"[:blank:]", |b| matches!(b, b' ' | b'\t')),
        (b"[:cntrl:]", u8::is_ascii_control),
        (b"[:digit:]", u8::is_ascii_digit),
        (b"[:graph:]", u8::is_ascii_graphic),
        (b"[:lower:]", u8::is_ascii_lowercase),
        (b"[:print:]", |b| b.is_ascii_graphic() || *b == b' '),
        (b"[:punct:]", u8::is_ascii_punctuation),
        (b"[:space:]", |b| b.is_ascii_whitespace() || *b == 0x0b),
        (b"[:upper:]", u8::is_ascii_uppercase),
        (b"[:xdigit:]", u8::is_ascii_hexdigit),
    ];
    CLASSES
        .iter()
        .find_map(|(name, class)| Some((*class, text.strip_prefix(*name)?)))
}
