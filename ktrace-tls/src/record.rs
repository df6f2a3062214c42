//! Records: five bytes of header (type, version, length) and a body.
