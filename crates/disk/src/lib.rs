//! The file seam: real files, and a simulated disk that can crash.
