"""OpenIGTLink in and out: a tracker's gateway as ``tool/*``, and a running pipeline for 3D Slicer.

Received and packed here from the specification (github.com/openigtlink/OpenIGTLink, Documents/Protocol): header
versions 1 and 2, the latter with an extended header and metadata, which is what protocol 3 sends.
"""
