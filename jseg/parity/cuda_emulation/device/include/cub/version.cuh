#pragma once
#define CUB_MAJOR_VERSION 2
