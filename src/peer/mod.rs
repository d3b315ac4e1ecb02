//! Node-to-node frames and links.
