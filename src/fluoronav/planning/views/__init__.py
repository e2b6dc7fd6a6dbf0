"""C-arm views to guide from: what error the registration will have there, and what that means for a screw."""
