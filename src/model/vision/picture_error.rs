//! The error of one picture, which never fails a whole batch.

/// The reason why a picture has no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PictureError {
    #[error("the picture is empty")]
    Empty,
    #[error("expected a JPEG, PNG or WebP picture, got {0}")]
    Format(String),
    #[error("the picture is cut off: its end is missing")]
    Truncated,
    #[error("expected at most {max} bytes of a picture, got {got}")]
    Bytes { max: usize, got: usize },
    #[error("expected at most {side_max} pixels a side and {pixels_max} in all, got {width} x {height}")]
    Size { side_max: u32, pixels_max: u64, width: u32, height: u32 },
    #[error("expected at most {max} bytes of pixels, got {got}")]
    Pixels { max: u64, got: u64 },
    #[error("expected the longer side to be at most {max} times the shorter, got {width} x {height}")]
    Aspect { max: u32, width: u32, height: u32 },
    #[error("the picture is damaged: {0}")]
    Damaged(String),
    #[error("the network gives numbers that are not finite")]
    NotFinite,
}
