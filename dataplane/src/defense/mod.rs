//! defense
