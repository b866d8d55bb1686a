//! Go's `encoding/json` for the structs that etcdctl prints.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// A value as `json.Marshal` writes it.
pub(crate) trait Json {
    /// Appends the value to `out`.
    fn json(&self, out: &mut Vec<u8>);

    /// Whether a field tagged `omitempty` with this value is left out.
    fn is_empty(&self) -> bool {
        false
    }
}

/// Writes one JSON object, field by field in the order of the calls.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Object<'a> {
        out.push(b'{');
        Object { out, first: true }
    }

    /// A field that is always there.
    pub(crate) fn field(&mut self, name: &str, value: &(impl Json + ?Sized)) -> &mut Self {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        name.json(self.out);
        self.out.push(b':');
        value.json(self.out);
        self
    }

    /// A field that is left out when it is empty.
    pub(crate) fn omit_empty(&mut self, name: &str, value: &(impl Json + ?Sized)) -> &mut Self {
        if value.is_empty() {
            return self;
        }
        self.field(name, value)
    }

    pub(crate) fn end(&mut self) {
        self.out.push(b'}');
    }
}

/// Implements [`Json`] for a generated message: field and JSON name, all `omitempty`, in the order of the `.proto` file.
macro_rules! json_message {
    ($message:ty { $($field:ident $name:literal),* $(,)? }) => {
        impl $crate::go::json::Json for $message {
            fn json(&self, out: &mut Vec<u8>) {
                let mut object = $crate::go::json::Object::new(out);
                $(object.omit_empty($name, &self.$field);)*
                object.end();
            }
        }
    };
}
pub(crate) use json_message;

macro_rules! json_number {
    ($($number:ty)*) => {$(
        impl Json for $number {
            fn json(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.to_string().as_bytes());
            }
            fn is_empty(&self) -> bool {
                *self == 0
            }
        }
    )*};
}
json_number!(i32 i64 u32 u64);

impl Json for bool {
    fn json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
    fn is_empty(&self) -> bool {
        !*self
    }
}

impl Json for str {
    fn json(&self, out: &mut Vec<u8>) {
        string(self.as_bytes(), out);
    }
    fn is_empty(&self) -> bool {
        str::is_empty(self)
    }
}

impl Json for String {
    fn json(&self, out: &mut Vec<u8>) {
        self.as_str().json(out);
    }
    fn is_empty(&self) -> bool {
        String::is_empty(self)
    }
}

impl Json for Bytes {
    fn json(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        out.extend_from_slice(STANDARD.encode(self).as_bytes());
        out.push(b'"');
    }
    fn is_empty(&self) -> bool {
        Bytes::is_empty(self)
    }
}

impl<T: Json> Json for Vec<T> {
    fn json(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        for (i, item) in self.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            item.json(out);
        }
        out.push(b']');
    }
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

/// `None` is a nil pointer or slice.
impl<T: Json> Json for Option<T> {
    fn json(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.json(out),
            None => out.extend_from_slice(b"null"),
        }
    }
    fn is_empty(&self) -> bool {
        self.is_none()
    }
}

/// A string with HTML's special characters escaped, as `json.Marshal` does it.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let short = match c {
                '"' => &b"\\\""[..],
                '\\' => b"\\\\",
                '\n' => b"\\n",
                '\r' => b"\\r",
                '\t' => b"\\t",
                '\u{8}' => b"\\b",
                '\u{c}' => b"\\f",
                _ => b"",
            };
            let code = u32::from(c);
            if !short.is_empty() {
                out.extend_from_slice(short);
            } else if code < 0x20 || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
            } else {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &(impl Json + ?Sized)) -> String {
        let mut out = Vec::new();
        value.json(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_for_html() {
        assert_eq!(
            text("a<b>&\u{2028}\u{2029}"),
            r#""a\u003cb\u003e\u0026\u2028\u2029""#
        );
        assert_eq!(
            text("\"\\\n\r\t\u{8}\u{c}\u{1}\u{7f}\u{e9}"),
            "\"\\\"\\\\\\n\\r\\t\\b\\f\\u0001\u{7f}\u{e9}\""
        );
    }

    #[test]
    fn bytes_are_base64() {
        assert_eq!(text(&Bytes::from_static(b"<&>")), "\"PCY+\"");
    }

    #[test]
    fn empty_fields_are_left_out_only_where_asked() {
        let mut out = Vec::new();
        Object::new(&mut out)
            .field("a", &0_i64)
            .omit_empty("b", &0_u64)
            .omit_empty("c", "")
            .field("d", &None::<Vec<String>>)
            .field("e", &Vec::<String>::new())
            .omit_empty("f", &vec![1_i32, 2])
            .omit_empty("g", &false)
            .end();
        assert_eq!(out, br#"{"a":0,"d":null,"e":[],"f":[1,2]}"#);
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        assert_eq!(text(&u64::MAX), "18446744073709551615");
        assert_eq!(text(&i64::MIN), "-9223372036854775808");
    }
}
