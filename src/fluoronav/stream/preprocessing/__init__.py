"""From the detector's counts to attenuation and the field-of-view mask."""
