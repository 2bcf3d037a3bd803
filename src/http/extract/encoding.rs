//! Compressed request bodies (`Content-Encoding`), decoded within the limit of plain ones.

use std::io::Read;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::http::error::ApiError;
use crate::shares::Taken;

/// Decoded bytes for which room is taken at once.
const PIECE_BYTES: usize = 64 << 10;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    Gzip,
    /// With zlib's frame, as the standard has it, or without, as some clients send it.
    Deflate,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut found = Self::Plain;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            // Anything but visible ASCII is an unknown word.
            for word in value.to_str().unwrap_or("?").split(',') {
                let encoding = match word.trim().to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    other => return Err(ApiError::UnknownEncoding(other.to_owned())),
                };
                if found != Self::Plain {
                    return Err(ApiError::UnknownEncoding("several in a row".to_owned()));
                }
                found = encoding;
            }
        }
        Ok(found)
    }

    /// The plain body of at most `limit_bytes`, which are taken as they come.
    pub(super) fn decode(
        self,
        body: &Bytes,
        limit_bytes: usize,
        taken: &mut Taken,
    ) -> Result<Bytes, ApiError> {
        let decoded = match self {
            Self::Plain => return Ok(body.clone()),
            Self::Gzip => read(MultiGzDecoder::new(&body[..]), limit_bytes, taken),
            // The first byte of zlib's frame says method 8; without the frame it would begin a
            // stored block whose padding is not zero.
            Self::Deflate if body.first().is_some_and(|byte| byte & 0x0f == 8) => {
                read(ZlibDecoder::new(&body[..]), limit_bytes, taken)
            }
            Self::Deflate => read(DeflateDecoder::new(&body[..]), limit_bytes, taken),
        };
        let decoded = decoded?;
        if decoded.len() > limit_bytes {
            return Err(ApiError::BodyTooLarge { limit_bytes });
        }
        Ok(decoded.into())
    }
}

/// At most one byte more than the limit, so that a bomb costs no more.
fn read(decoder: impl Read, limit_bytes: usize, taken: &mut Taken) -> Result<Vec<u8>, ApiError> {
    let mut decoder = decoder.take(limit_bytes as u64 + 1);
    let (mut plain, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        match decoder.read(&mut piece).map_err(|_| ApiError::Undecodable)? {
            0 => return Ok(plain),
            read => {
                taken.grow(read as u64).map_err(ApiError::bodies)?;
                plain.extend_from_slice(&piece[..read]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;
    use crate::shares::{Client, Share, Shares};

    fn encoding(words: &[&str]) -> Result<Encoding, ApiError> {
        let pairs = words.iter().map(|word| (header::CONTENT_ENCODING, word.parse().unwrap()));
        Encoding::of(&pairs.collect())
    }

    #[test]
    fn known_words_are_read_and_others_are_named() {
        for (words, expected) in [
            (&[][..], Encoding::Plain),
            (&["identity"], Encoding::Plain),
            (&["GZIP"], Encoding::Gzip),
            (&["x-gzip, identity"], Encoding::Gzip),
            (&["deflate"], Encoding::Deflate),
        ] {
            assert_eq!(encoding(words), Ok(expected), "{words:?}");
        }
        assert_eq!(encoding(&["br"]), Err(ApiError::UnknownEncoding("br".into())));
        assert!(encoding(&["gzip, gzip"]).is_err() && encoding(&["gzip", "deflate"]).is_err());
    }

    #[test]
    fn bodies_come_back_and_bombs_stop_at_the_limit() {
        let text = b"{\"model\":\"m\"}".repeat(100);
        let mut gzip = GzEncoder::new(vec![], Compression::best());
        let mut zlib = ZlibEncoder::new(vec![], Compression::best());
        let mut raw = DeflateEncoder::new(vec![], Compression::best());
        for writer in [&mut gzip as &mut dyn Write, &mut zlib, &mut raw] {
            writer.write_all(&text).unwrap();
        }
        let bodies = [
            (Encoding::Gzip, gzip.finish().unwrap()),
            (Encoding::Deflate, zlib.finish().unwrap()),
            (Encoding::Deflate, raw.finish().unwrap()),
        ];
        let mut taken = Shares::new(1 << 20, Share::new(1.0)).take(Client::default(), 0).unwrap();
        for (encoding, body) in bodies {
            let body = Bytes::from(body);
            let mut decode = |body: &Bytes, limit| encoding.decode(body, limit, &mut taken);
            assert_eq!(decode(&body, text.len()).unwrap(), text, "{encoding:?}");
            let limit_bytes = text.len() - 1;
            let over = decode(&body, limit_bytes);
            assert_eq!(over, Err(ApiError::BodyTooLarge { limit_bytes }));
            let cut = body.slice(..body.len() / 2);
            assert_eq!(decode(&cut, text.len()), Err(ApiError::Undecodable));
        }
    }
}
