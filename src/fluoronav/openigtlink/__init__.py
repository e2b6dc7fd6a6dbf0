"""OpenIGTLink in and out: a tracker's gateway as ``tool/*``, and a running pipeline for 3D Slicer.

Written from the specification (github.com/openigtlink/OpenIGTLink, Documents/Protocol): header versions 1 and 2, the
latter with an extended header and metadata (protocol 3).
"""
