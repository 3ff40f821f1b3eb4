//! Avatars: whatever image arrives becomes a 512×512 WebP with nothing in it but pixels.
//!
//! I1  Kinds are told by their first bytes; what a client says about them is ignored.
//! I2  Dimensions are read before any pixel: what is too large is never decoded, and a decoder may allocate only so much.

use std::io::Cursor;

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

/// Edge of an avatar, in pixels; the contract's number.
const EDGE: u32 = 512;
/// Most pixels of an input; the contract's number.
const PIXELS_MAX: u64 = 50_000_000;
/// Most bytes that a decoder allocates: the most pixels at eight bytes, and something to work with.
const ALLOCATION_MAX: u64 = PIXELS_MAX * 8 + 64 * 1024 * 1024;

/// Why an input is no avatar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// None of the kinds.
    #[error("must be a JPEG, PNG, WebP or GIF image")]
    Unrecognised,
    /// Too large.
    #[error("must have at most 50 megapixels")]
    TooManyPixels,
    /// Begins like an image and is none.
    #[error("cannot be decoded")]
    Undecodable,
}

/// The avatar made of `bytes`. Takes up to seconds: run it where blocking is allowed.
pub fn avatar(bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
    let format = kind(bytes).ok_or(ImageError::Unrecognised)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(ALLOCATION_MAX);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|_| ImageError::Undecodable)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(ImageError::TooManyPixels);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = DynamicImage::from_decoder(decoder).map_err(|_| ImageError::Undecodable)?;
    // Smaller first: turning a thumbnail is cheaper than turning the original.
    let mut square = image.resize_to_fill(EDGE, EDGE, FilterType::CatmullRom);
    square.apply_orientation(orientation);
    let mut webp = Cursor::new(Vec::new());
    let pixels = DynamicImage::ImageRgba8(square.to_rgba8());
    pixels.write_to(&mut webp, ImageFormat::WebP).map_err(|_| ImageError::Undecodable)?;
    Ok(webp.into_inner())
}

fn kind(bytes: &[u8]) -> Option<ImageFormat> {
    match bytes {
        [0xFF, 0xD8, 0xFF, ..] => Some(ImageFormat::Jpeg),
        [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Some(ImageFormat::Png),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(ImageFormat::Gif),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(ImageFormat::WebP),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;

    fn sample(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
        let pixels =
            RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageRgb8(pixels).write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn every_kind_becomes_a_square_webp() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP] {
            for (width, height) in [(800, 600), (3, 900), (512, 512), (1, 1)] {
                let webp = avatar(&sample(format, width, height)).unwrap();
                let made = image::load_from_memory_with_format(&webp, ImageFormat::WebP).unwrap();
                assert_eq!((made.width(), made.height()), (EDGE, EDGE), "{format:?}");
                assert!(!webp.windows(4).any(|window| window == b"EXIF"));
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        let mut png = sample(ImageFormat::Png, 2, 2);
        png[16..24].copy_from_slice(&[0, 0, 0x4E, 0x20, 0, 0, 0x4E, 0x20]); // claims 20,000 x 20,000
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(avatar(&png), Err(ImageError::TooManyPixels));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
        })
    }

    #[test]
    fn what_is_no_image_is_refused() {
        assert_eq!(avatar(b""), Err(ImageError::Unrecognised));
        assert_eq!(avatar(b"<svg/>"), Err(ImageError::Unrecognised));
        let whole = sample(ImageFormat::Jpeg, 64, 64);
        assert_eq!(avatar(&whole[..20]), Err(ImageError::Undecodable));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damage_never_panics(at in 0usize..400, byte: u8, keep in 0usize..700, kind in 0usize..4) {
            let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Gif, ImageFormat::WebP];
            let mut bytes = sample(formats[kind], 16, 16);
            let at = at % bytes.len();
            bytes[at] ^= byte;
            bytes.truncate(keep.max(12));
            let _ = avatar(&bytes);
        }
    }
}
