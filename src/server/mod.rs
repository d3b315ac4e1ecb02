//! The client's door: sessions that speak RESP.
