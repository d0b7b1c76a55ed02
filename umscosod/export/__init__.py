"""Writes results: PNG masks and maps, COCO, YOLO and CVAT, the report, and the contact sheet."""
